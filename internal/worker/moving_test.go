package worker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// What moves entries hears of the end of each run once its entry is there, and has ended when the worker has.
func TestHistoryHearsOfEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.Attempts = 1 })
	heard := make(chan int)
	over := make(chan struct{})
	stop := b.startWith(t, worker.Options{History: func(ctx context.Context, ended <-chan struct{}) {
		defer close(over)
		for {
			select {
			case <-ended:
				list, err := b.Entries(ctx, b.user, jobs.MaxEntries)
				if err != nil {
					t.Error(err)
				}
				heard <- len(list)
			case <-ctx.Done():
				return
			}
		}
	}}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		if run.Payload.UniqueKey() == tasks.SyncFull {
			return nil, errors.New("no")
		}
		return nil, nil
	}, (*jobs.Jobs).KeepHistory)
	for i, syncType := range []string{tasks.SyncFull, tasks.SyncIncremental} {
		b.trigger(t, "user-sync", syncType)
		if got := testbed.Receive(t, "the end of a run", heard); got != i+1 {
			t.Errorf("heard of the end of run %d with %d entries", i+1, got)
		}
	}
	stop()
	select {
	case <-over:
	default:
		t.Error("the worker has ended before what moves entries")
	}
}
