package worker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// delay triggers a full run of the user sync that is due after d.
func (b *testBundle) delay(t *testing.T, d time.Duration) jobs.Accepted {
	t.Helper()
	payload, by := &tasks.SyncPayload{SyncType: tasks.SyncFull}, jobs.Trigger{Kind: jobs.TriggeredByAPI}
	accepted, err := b.TriggerAt(t.Context(), b.user, payload, time.Now().Add(d), by)
	if err != nil || accepted.RunAt.IsZero() {
		t.Fatalf("%+v, %v", accepted, err)
	}
	return accepted
}

// begun is a run that a handler was called for.
type begun struct {
	id tasks.RunID
	at time.Time
}

// reporting returns a handler that says when it was called.
func reporting() (<-chan begun, jobtype.Handler) {
	runs := make(chan begun, 100)
	return runs, func(_ context.Context, a *jobtype.Attempt) (any, error) {
		runs <- begun{a.ID, time.Now()}
		return "done", nil
	}
}

// A delayed run begins at its time, and within about a second of it, on a worker that is idle: also one that is due within the
// second in which it was accepted, and one of a job type without a lease.
func TestDelayedRunBeginsAtItsTime(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tasks.Definition){
		"with a lease": nil, "without a lease": func(d *tasks.Definition) { d.Overall, d.PerWorker = 0, 2 },
	} {
		for _, d := range []time.Duration{50 * time.Millisecond, 350 * time.Millisecond, 2300 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, %s", name, d), func(t *testing.T) {
				t.Parallel()
				b := setup(t, change)
				runs, handler := reporting()
				b.start(t, worker.Options{}, handler)
				testbed.Eventually(t, "the worker to live", func() bool {
					n, err := b.Live(t.Context(), jobs.RoleWorker)
					return err == nil && n == 1
				})
				delayed := b.delay(t, d)
				got := testbed.Receive(t, "the run", runs)
				if got.id != delayed.ID || !got.id.Reference.Equal(delayed.RunAt) {
					t.Errorf("%s began, want %s", got.id, delayed.ID)
				}
				// A second because asynq counts whole ones, the rest for a machine that is busy.
				if late := got.at.Sub(delayed.RunAt); late < 0 || late > 2500*time.Millisecond {
					t.Errorf("it began %s after its time", late)
				}
				if info := b.await(t, delayed.ID.String(), asynq.TaskStateCompleted); info.Retried != 0 {
					t.Errorf("it was tried again %d times", info.Retried)
				}
			})
		}
	}
}

// A run that is due while no worker lives, or while its job type is paused, begins later.
func TestDelayedRunThatIsHeld(t *testing.T) {
	t.Parallel()
	for name, paused := range map[string]bool{"without a worker": false, "paused": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			runs, handler := reporting()
			if paused {
				if err := b.Pause(t.Context(), b.user, jobs.Trigger{}); err != nil {
					t.Fatal(err)
				}
				b.start(t, worker.Options{}, handler)
			}
			delayed := b.delay(t, 150*time.Millisecond)
			if paused {
				b.await(t, delayed.ID.String(), asynq.TaskStatePending) // a look has moved it
			} else {
				testbed.Eventually(t, "its time", func() bool { return time.Since(delayed.RunAt) > time.Second })
				if job, err := b.Find(t.Context(), delayed.ID); err != nil || job.State != jobs.StateDelayed {
					t.Errorf("it is %+v, %v", job, err)
				}
			}
			select {
			case got := <-runs:
				t.Fatalf("%s began", got.id)
			default:
			}
			// It waits, and so serves a trigger.
			accepted, err := b.Trigger(t.Context(), b.user, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			if err != nil || accepted != (jobs.Accepted{ID: delayed.ID, Coalesced: true}) {
				t.Errorf("a trigger: %+v, %v", accepted, err)
			}
			if paused {
				if err := b.Resume(t.Context(), b.user, jobs.Trigger{}); err != nil {
					t.Fatal(err)
				}
			} else {
				b.start(t, worker.Options{}, handler)
			}
			if got := testbed.Receive(t, "the run", runs); got.id != delayed.ID {
				t.Errorf("%s began, want %s", got.id, delayed.ID)
			}
		})
	}
}

// A delayed run that is cancelled before its time never begins.
func TestDelayedRunThatIsCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	runs, handler := reporting()
	b.start(t, worker.Options{}, handler)
	cancelled, later := b.delay(t, 1200*time.Millisecond), b.delay(t, 2200*time.Millisecond)
	if removed, err := b.Cancel(t.Context(), cancelled.ID, jobs.Trigger{}); err != nil || !removed {
		t.Fatalf("cancelling: %v, %v", removed, err)
	}
	if got := testbed.Receive(t, "the other run", runs); got.id != later.ID {
		t.Errorf("%s began, want %s only", got.id, later.ID)
	}
	b.await(t, later.ID.String(), asynq.TaskStateCompleted)
}

// The maximum duration counts from the first start, not from the trigger.
func TestDelayedRunMayTakeItsTime(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.Attempts, d.MaxDuration = 1, 1500*time.Millisecond })
	b.start(t, worker.Options{}, func(ctx context.Context, _ *jobtype.Attempt) (any, error) { return nil, context.Cause(ctx) })
	b.await(t, b.delay(t, 2*time.Second).ID.String(), asynq.TaskStateCompleted)
}

// A delayed run that has failed is retried as any other, also by hand.
func TestDelayedRunThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.Attempts, d.Backoff = 2, time.Second })
	runs, handler := reporting()
	stop := b.start(t, worker.Options{}, func(ctx context.Context, a *jobtype.Attempt) (any, error) {
		_, _ = handler(ctx, a)
		return nil, errors.New("no")
	})
	delayed := b.delay(t, 150*time.Millisecond)
	for range 2 {
		testbed.Receive(t, "an attempt", runs)
	}
	b.await(t, delayed.ID.String(), asynq.TaskStateArchived)
	stop()
	if err := b.Retry(t.Context(), delayed.ID, ""); err != nil {
		t.Fatal(err)
	}
	b.start(t, worker.Options{}, done)
	b.await(t, delayed.ID.String(), asynq.TaskStateCompleted)
}
