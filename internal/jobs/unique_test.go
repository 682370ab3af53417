package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// setupUnique is setup with another Unique of the job types.
func setupUnique(t *testing.T, unique tasks.Unique) (*testBundle, context.Context) {
	t.Helper()
	b, ctx := setup(t)
	registry := b.Registry().Resolve(func(d *tasks.Definition) { d.Unique = unique })
	b.Jobs = jobs.New(b.rdb, registry, slog.New(slog.DiscardHandler))
	b.def, _ = registry.Lookup(b.def.Name)
	return b, ctx
}

// run begins the run as a worker does, and ends it.
func (b *testBundle) run(ctx context.Context, t *testing.T, id tasks.RunID, end func(*jobs.RunState) error) {
	t.Helper()
	state, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
	if err == nil {
		err = end(state)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestUniqueNever(t *testing.T) {
	t.Parallel()
	b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueNever})
	ids := make(map[tasks.RunID]bool)
	for range 20 {
		accepted := b.trigger(ctx, t, tasks.SyncIncremental)
		if accepted.Coalesced {
			t.Errorf("a trigger coalesced with %s", accepted.ID)
		}
		ids[accepted.ID] = true
	}
	if n := len(b.pending(t)); len(ids) != 20 || n != 20 {
		t.Errorf("20 triggers have %d runs, and %d wait", len(ids), n)
	}
	// Each tick has its run, and has it once.
	every := b.def.Schedule.Every
	last := b.def.Schedule.Prev(time.Now())
	for _, tickTime := range []time.Time{last.Add(-every), last} {
		b.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
		b.wantTick(t, tickTime, jobs.Tick{})
	}
	if n := len(b.pending(t)); n != 22 {
		t.Errorf("%d runs wait, want 22", n)
	}
	b.delay(ctx, t, tasks.SyncIncremental, time.Hour)
	for _, what := range []string{"waiting", "due", "window"} {
		if keys, err := b.rdb.Keys(ctx, "codex-jobs:*:"+what+":*").Result(); err != nil || len(keys) > 0 {
			t.Errorf("it has the keys %v, %v", keys, err)
		}
	}
}

// Whatever becomes of the run, it serves the triggers of the time.
func TestUniqueFor(t *testing.T) {
	t.Parallel()
	for name, live := range map[string]func(context.Context, *testing.T, *testBundle, tasks.RunID){
		"waiting": func(context.Context, *testing.T, *testBundle, tasks.RunID) {},
		"active": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			b.take(ctx, t)
			b.run(ctx, t, id, func(*jobs.RunState) error { return nil })
		},
		"completed": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			took, release := b.hold(t)
			<-took
			b.run(ctx, t, id, func(s *jobs.RunState) error { return s.Complete(ctx, []byte("{}")) })
			release()
			testbed.Eventually(t, "the run to be completed", func() bool {
				job, err := b.Find(ctx, id)
				return err == nil && job.State == jobs.StateCompleted
			})
		},
		"failed": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			b.run(ctx, t, id, func(s *jobs.RunState) error { return s.Fail(ctx, errors.New("told to")) })
			if err := b.inspector.ArchiveTask(b.def.Name, id.String()); err != nil {
				t.Fatal(err)
			}
		},
		"trimmed": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			b.run(ctx, t, id, func(s *jobs.RunState) error { return s.Complete(ctx, []byte("{}")) })
			if err := b.inspector.DeleteTask(b.def.Name, id.String()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
			first := b.trigger(ctx, t, tasks.SyncFull)
			live(ctx, t, b, first.ID)
			for range 2 {
				if got := b.trigger(ctx, t, tasks.SyncFull); got != (jobs.Accepted{ID: first.ID, Coalesced: true}) {
					t.Errorf("got %+v, want it coalesced with %s", got, first.ID)
				}
			}
			if other := b.trigger(ctx, t, tasks.SyncIncremental); other.Coalesced {
				t.Errorf("a trigger with another key: %+v", other)
			}
			// After the time there is another run. It is Redis that ends the time.
			window := "codex-jobs:{user-sync}:window:full"
			if ttl, err := b.rdb.PTTL(ctx, window).Result(); err != nil || ttl <= 59*time.Minute || ttl > time.Hour {
				t.Errorf("the time ends in %s, %v", ttl, err)
			}
			if err := b.rdb.PExpire(ctx, window, time.Millisecond).Err(); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, "the time to end", func() bool { return b.rdb.Exists(ctx, window).Val() == 0 })
			if got := b.trigger(ctx, t, tasks.SyncFull); got.Coalesced != (name == "waiting") {
				t.Errorf("after the time: %+v", got)
			}
		})
	}
}

// A run that ends within the time that a process needs to enqueue the next one is not accepted twice.
func TestUniqueForConcurrently(t *testing.T) {
	t.Parallel()
	b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
	accepted := make(chan jobs.Accepted)
	for range 50 {
		go func() {
			got, err := b.Trigger(ctx, b.def, payload(tasks.SyncFull))
			if err != nil {
				t.Error(err)
			}
			accepted <- got
		}()
	}
	ids, fresh := make(map[tasks.RunID]bool), 0
	for range 50 {
		got := testbed.Receive(t, "an answer", accepted)
		if ids[got.ID] = true; !got.Coalesced {
			fresh++
		}
		if _, err := b.StartRun(ctx, got.ID, tasks.SyncFull, jobs.NewOwner("host:1:abc")); err != nil {
			t.Error(err)
		}
	}
	if len(ids) != 1 || fresh != 1 {
		t.Errorf("50 triggers have the runs %v, %d of them new", ids, fresh)
	}
}

// A process died between taking the key and enqueueing the run.
func TestUniqueForAfterADeadProcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		age       time.Duration
		stolen    bool // another run has taken the unique key since
		coalesced bool
	}{
		{"young: the next trigger enqueues the run", 0, false, true},
		{"young, and without the unique key: as well", 0, true, true},
		{"old: the next trigger has a run of its own", time.Minute, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
			first := b.trigger(ctx, t, tasks.SyncFull)
			if err := b.inspector.DeleteTask(b.def.Name, first.ID.String()); err != nil { // as if it had never been there
				t.Fatal(err)
			}
			for _, entry := range []string{"waiting", "window"} {
				at := time.Now().Add(-test.age).UnixMilli()
				if err := b.rdb.HSet(ctx, fmt.Sprintf("codex-jobs:{user-sync}:%s:full", entry), "time", at).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if test.stolen {
				if err := b.rdb.Del(ctx, "codex-jobs:{user-sync}:waiting:full").Err(); err != nil {
					t.Fatal(err)
				}
			}
			got := b.trigger(ctx, t, tasks.SyncFull)
			if got.Coalesced != test.coalesced || (got.ID == first.ID) != test.coalesced {
				t.Errorf("got %+v, the first was %s", got, first.ID)
			}
			waiting := b.pending(t)
			if len(waiting) != 1 || waiting[0].ID != got.ID.String() || string(waiting[0].Payload) != `{"version":1,"syncType":"full"}` {
				t.Errorf("%v wait", waiting)
			}
			if again := b.trigger(ctx, t, tasks.SyncFull); again.ID != got.ID || !again.Coalesced {
				t.Errorf("once more: %+v", again)
			}
		})
	}
}

// A tick's work must be done: only a run that waits serves it. And the run of a tick, and a delayed run, begin no time.
func TestUniqueForAndTicks(t *testing.T) {
	t.Parallel()
	b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
	last := b.def.Schedule.Prev(time.Now())
	first := b.trigger(ctx, t, tasks.SyncIncremental)
	b.wantTick(t, last.Add(-b.def.Schedule.Every), jobs.Tick{ServedBy: first.ID.String()})
	if _, err := b.StartRun(ctx, first.ID, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	b.wantTick(t, last, jobs.Tick{Enqueued: true})
	if got := b.trigger(ctx, t, tasks.SyncIncremental); got.ID != first.ID || !got.Coalesced {
		t.Errorf("a trigger within the time: %+v", got)
	}
	b.delay(ctx, t, tasks.SyncIncremental, time.Hour)

	b2, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
	delayed := b2.delay(ctx, t, tasks.SyncIncremental, soon)
	b2.wantTick(t, last, jobs.Tick{Enqueued: true})
	awaitTime(t, delayed.RunAt)
	for _, id := range []tasks.RunID{delayed.ID, tasks.TickID(b2.def.Name, last)} {
		if _, err := b2.StartRun(ctx, id, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
			t.Fatal(err)
		}
	}
	if got := b2.trigger(ctx, t, tasks.SyncIncremental); got.Coalesced {
		t.Errorf("a trigger after their start: %+v", got)
	}
}

// A run that is removed before it begins serves no trigger.
func TestUniqueForOfACancelledRun(t *testing.T) {
	t.Parallel()
	b, ctx := setupUnique(t, tasks.Unique{Mode: tasks.UniqueFor, For: time.Hour})
	first := b.trigger(ctx, t, tasks.SyncFull)
	if removed, err := b.Cancel(ctx, first.ID, jobs.Trigger{}); err != nil || !removed {
		t.Fatalf("cancelling: %v, %v", removed, err)
	}
	if got := b.trigger(ctx, t, tasks.SyncFull); got.Coalesced || len(b.pending(t)) != 1 {
		t.Errorf("got %+v, and %d wait", got, len(b.pending(t)))
	}
}
