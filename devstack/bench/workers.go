// This section measures how well several workers share a run.

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// batchWait is how long each batch waits in slowworker.
const batchWait = 20 * time.Millisecond

// measureWorkers measures how much faster one run is on several workers than on one, when each batch waits for another
// service and each worker works on one batch at a time.
func (b *bench) measureWorkers(ctx context.Context) error {
	n := b.plan.sharedUsers
	if err := b.users.ensure(ctx, n); err != nil {
		return err
	}
	crews := []int{1, 2, 4}
	speeds := make([][]float64, len(crews))
	err := rounds(func(number int) error {
		for i, size := range crews {
			var workers []spec
			for range size {
				workers = append(workers, spec{program: slowProgram, ready: procs.Ready(procs.Worker), settings: settings{
					writersSetting: "1", batchSizeSetting: strconv.Itoa(b.plan.sharedBatch),
					rangeSizeSetting:   strconv.Itoa(n / b.plan.ranges),
					"BENCH_BATCH_WAIT": batchWait.String(),
				}})
			}
			c, err := b.syncOn(ctx, workers, n, full)
			if err != nil {
				return err
			}
			b.progress.say("full sync, %s users, batches that wait, workers: %d, round %d: %s", count(n), size, number, rounded(c.took))
			speeds[i] = append(speeds[i], perSecond(n, c.took))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, size := range crews[1:] {
		b.report.addMedians(figure{
			Section: "workers", Unit: usersPerSecond,
			What:    fmt.Sprintf("%d workers, %s users, batches of %d wait %v", size, count(n), b.plan.sharedBatch, batchWait),
			Against: "1 worker", Samples: speeds[i+1], AgainstSamples: speeds[0],
		})
	}
	return nil
}
