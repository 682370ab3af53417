// Command slowworker is the worker with slow work: it waits before it stamps a batch, as if it called another service.
//
// The bench measures with it how several workers share a run. BENCH_BATCH_WAIT is how long it waits, by default 20ms. Its
// other settings are the worker's.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/program/worker"
)

func main() {
	wait, err := time.ParseDuration(cmp.Or(os.Getenv("BENCH_BATCH_WAIT"), "20ms"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "BENCH_BATCH_WAIT:", err)
		os.Exit(2)
	}
	var types []job.Type
	for _, sync := range codex.Syncs {
		sync.Update = func(ctx context.Context, batch *job.Batch[codex.Stamped]) ([]job.Outcome, error) {
			return slow(ctx, wait, len(batch.Records))
		}
		types = append(types, job.NewSync(sync))
	}
	worker.Main(types...)
}

// slow waits, and then changes nothing but the dates of n records.
func slow(ctx context.Context, wait time.Duration, n int) ([]job.Outcome, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return make([]job.Outcome, n), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
