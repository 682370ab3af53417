// Command slowworker is the worker with work that waits: before it stamps a batch it does nothing for a while, as if it
// asked somebody for something.
//
// It exists for the bench, which measures with it how several workers share a run. How long it waits is said by
// BENCH_BATCH_WAIT, by default 20ms; its settings are otherwise the worker's.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func main() {
	daemon.Main(daemon.Program{
		Name: "worker", Summary: "works on runs as the worker does, with batches that wait for a while",
		Run: run, Healthy: daemon.LiveHere(jobs.RoleWorker), AdminPort: config.AdminPortWorker,
	})
}

func run(ctx context.Context, process *daemon.Process) error {
	wait, err := time.ParseDuration(cmp.Or(os.Getenv("BENCH_BATCH_WAIT"), "20ms"))
	if err != nil {
		return fmt.Errorf("reading BENCH_BATCH_WAIT: %w", err)
	}
	return worker.Serve(ctx, process, slow{wait})
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
