package jobs_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// enqueueMany puts runs into the queue that are an hour old.
func (b *testBundle) enqueueMany(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(b.rdb)
	for range n {
		if _, err := client.EnqueueContext(ctx, b.def.NewTask(tasks.TriggerID(b.def.Name, time.Now().Add(-time.Hour)), []byte("{}"), nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// There are more runs than one command lists. Cancelled ones stay, and a repetition finds nothing to do.
func TestRetryFailed(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	cancelled := b.cancelled(ctx, t)
	const many = 501
	b.enqueueMany(ctx, t, many)
	if _, err := b.inspector.ArchiveAllPendingTasks(b.def.Name); err != nil {
		t.Fatal(err)
	}
	b.outOfTime(ctx, t, func(ctx context.Context, def tasks.Definition) (jobs.Bulk, error) {
		return b.RetryFailed(ctx, def, "")
	}, many)
	for _, want := range []jobs.Bulk{{Changed: many}, {}} {
		if got, err := b.RetryFailed(ctx, b.def, "ops"); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	waiting := b.pending(t)
	if len(waiting) != many {
		t.Fatalf("%d wait, want %d", len(waiting), many)
	}
	if run, err := b.Find(ctx, cancelled); err != nil || run.State != jobs.StateCancelled {
		t.Errorf("the cancelled one: %+v, %v", run, err)
	}
	id, _ := tasks.ParseRunID(waiting[0].ID)
	run, err := b.Find(ctx, id)
	if at := time.UnixMilli(run.TriggeredBy.At); time.Since(at).Abs() > time.Minute {
		t.Errorf("it was retried at %s", at)
	}
	run.TriggeredBy.At = 0
	if err != nil || run.TriggeredBy != (jobs.Trigger{Kind: jobs.TriggeredByRetry, Key: "ops"}) {
		t.Errorf("one of the others: %+v, %v", run, err)
	}
}

// Active and delayed runs stay, and so do those of other job types. The unique keys are free.
func TestCancelAllWaiting(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	active := b.trigger(ctx, t, tasks.SyncFull).ID
	took, _ := b.hold(t)
	<-took
	delayed, err := b.TriggerAt(ctx, b.def, payload(tasks.SyncFull), time.Now().Add(time.Hour), jobs.Trigger{Kind: jobs.TriggeredByAPI})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := b.Registry().Lookup("issue-sync")
	elsewhere, err := b.Trigger(ctx, other, payload(tasks.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	b.trigger(ctx, t, tasks.SyncIncremental)
	const many = 501
	b.enqueueMany(ctx, t, many)
	cancel := func(ctx context.Context, def tasks.Definition) (jobs.Bulk, error) {
		return b.CancelWaiting(ctx, def, jobs.Trigger{Kind: jobs.TriggeredByAPI})
	}
	b.outOfTime(ctx, t, cancel, many+1)
	for _, want := range []jobs.Bulk{{Changed: many + 1}, {}} {
		if got, err := cancel(ctx, b.def); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	for id, want := range map[tasks.RunID]jobs.State{
		active: jobs.StateActive, delayed.ID: jobs.StateDelayed, elsewhere.ID: jobs.StateWaiting,
	} {
		if run, err := b.Find(ctx, id); err != nil || run.State != want {
			t.Errorf("%s: %+v, %v, want it %s", id, run, err, want)
		}
	}
	if b.trigger(ctx, t, tasks.SyncIncremental).Coalesced {
		t.Error("a removed run still has the unique key")
	}
}

// A deadline says how many are left, and changes none of them. The end of a client is an error.
func (b *testBundle) outOfTime(ctx context.Context, t *testing.T, change func(context.Context, tasks.Definition) (jobs.Bulk, error), want int) {
	t.Helper()
	late, cancel := context.WithDeadline(ctx, time.Now())
	defer cancel()
	if got, err := change(late, b.def); err != nil || got != (jobs.Bulk{Left: want}) {
		t.Errorf("after the deadline: %+v, %v, want %d left", got, err, want)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := change(gone, b.def); !errors.Is(err, context.Canceled) || got.Changed > 0 {
		t.Errorf("without a client: %+v, %v", got, err)
	}
}

// cancelError is the error of a run that was cancelled.
type cancelError struct{}

func (cancelError) Error() string        { return "cancelled" }
func (cancelError) Is(target error) bool { return target == asynq.SkipRetry }

// cancelled returns a run that was cancelled while it was active.
func (b *testBundle) cancelled(ctx context.Context, t *testing.T) tasks.RunID {
	t.Helper()
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	server := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{Queues: map[string]int{b.def.Name: 1}, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return cancelError{} })); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, "the run to be cancelled", func() bool {
		run, err := b.Find(ctx, id)
		return err == nil && run.State == jobs.StateCancelled
	})
	server.Shutdown()
	return id
}
