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

	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/programs/worker"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func main() {
	wait, err := time.ParseDuration(cmp.Or(os.Getenv("BENCH_BATCH_WAIT"), "20ms"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "BENCH_BATCH_WAIT:", err)
		os.Exit(2)
	}
	daemon.Main(worker.New(slow{wait}))
}

// slow is work that waits before it stamps.
type slow struct{ wait time.Duration }

// Do implements syncrun.Work.
func (s slow) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	timer := time.NewTimer(s.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return syncrun.Stamping{}.Do(ctx, batch)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
