package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// A run whose handler says that something is away comes again when the handler says, at no cost. Meanwhile it holds nothing, and
// the time does not count against its maximum duration.
func TestRunWaitsForWhatIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.Attempts, d.MaxDuration = 1, 2500*time.Millisecond })
	var tries atomic.Int32
	b.start(t, worker.Options{}, func(ctx context.Context, a *jobtype.Attempt) (any, error) {
		if a.Number != 1 {
			return nil, fmt.Errorf("attempt %d", a.Number)
		}
		switch n := tries.Add(1); {
		case n == 2 && string(a.Checkpoint) != `"half"`:
			return nil, fmt.Errorf("the checkpoint is %s", a.Checkpoint)
		case n > 3:
			return "done", nil
		case n == 1:
			if err := a.Save(ctx, []byte(`"half"`), 50); err != nil {
				return nil, err
			}
		}
		return nil, fmt.Errorf("asking: %w", &jobtype.WaitError{Err: errors.New("the upstream is away"), After: time.Second})
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	b.await(t, id, asynq.TaskStateRetry)
	testbed.Eventually(t, "the run to say that it is snoozed, and why", func() bool {
		run, err := tasks.ParseRunID(id)
		if err != nil {
			t.Fatal(err)
		}
		job, err := b.Find(t.Context(), run)
		return err == nil && job.State == jobs.StateDelayed && job.Attempt == 1 && job.Error == "" &&
			job.Wait != nil && job.Wait.Upstream && job.Wait.For == "the upstream is away" && !job.Wait.Since.IsZero()
	})
	started := time.Now()
	b.idle(t)
	if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 0 {
		t.Errorf("retried %d times", info.Retried)
	}
	if waited := time.Since(started); waited < 2*time.Second {
		t.Errorf("it waited only for %s", waited)
	}
}

// A run that waited for a day, and made no progress, fails.
func TestRunWaitsADayAtMost(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var tries atomic.Int32
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) {
		tries.Add(1)
		return nil, &jobtype.WaitError{Err: errors.New("the upstream is away"), After: time.Second}
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	b.await(t, id, asynq.TaskStateRetry)
	long := time.Now().Add(-25 * time.Hour).UnixMilli()
	if err := b.rdb.HSet(t.Context(), "codex-jobs:{user-sync}:run:"+id, "waiting", long).Err(); err != nil {
		t.Fatal(err)
	}
	info := b.await(t, id, asynq.TaskStateArchived)
	if !strings.Contains(info.LastErr, "waited for 24h0m0s: the upstream is away") {
		t.Errorf("the reason is %q", info.LastErr)
	}
}
