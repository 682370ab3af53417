package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// delay triggers a run that is due after d.
func (b *testBundle) delay(ctx context.Context, t *testing.T, syncType string, d time.Duration) jobs.Accepted {
	t.Helper()
	accepted, err := b.TriggerAt(ctx, b.def, payload(syncType), time.Now().Add(d), jobs.Trigger{Kind: jobs.TriggeredByAPI})
	if err != nil {
		t.Fatal(err)
	}
	if accepted.Coalesced || accepted.RunAt.IsZero() || !accepted.ID.Reference.Equal(accepted.RunAt) {
		t.Fatalf("a delayed trigger: %+v", accepted)
	}
	return accepted
}

// soon is a delay after which a test goes on.
const soon = 150 * time.Millisecond

// awaitTime waits for a time.
func awaitTime(t *testing.T, at time.Time) {
	t.Helper()
	testbed.Eventually(t, "the time to come", func() bool { return !time.Now().Before(at) })
}

// awaitPending waits until a look has put the run among the pending ones.
func (b *testBundle) awaitPending(ctx context.Context, t *testing.T, id tasks.RunID) {
	t.Helper()
	testbed.Eventually(t, "the run to be pending", func() bool {
		b.findWork(ctx, t)
		return slices.ContainsFunc(b.pending(t), func(info *asynq.TaskInfo) bool { return info.ID == id.String() })
	})
}

// dueKeys returns the sets of delayed runs.
func (b *testBundle) dueKeys(ctx context.Context, t *testing.T) []string {
	t.Helper()
	keys, err := b.rdb.Keys(ctx, "codex-jobs:{user-sync}:due:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestDelayedRunIsListed(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	at := time.Now().Add(time.Hour).Truncate(time.Second).Add(123456 * time.Microsecond)
	accepted, err := b.TriggerAt(ctx, b.def, payload(tasks.SyncFull), at, jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	runAt := at.Truncate(time.Millisecond).Add(time.Millisecond) // not before it
	if !accepted.RunAt.Equal(runAt) || !accepted.ID.Reference.Equal(runAt) {
		t.Errorf("accepted %+v, want it for %s", accepted, runAt)
	}
	if again, err := tasks.ParseRunID(accepted.ID.String()); err != nil || again != accepted.ID {
		t.Errorf("its ID is read as %+v, %v", again, err)
	}
	job, err := b.Find(ctx, accepted.ID)
	if err != nil || job.State != jobs.StateDelayed || !job.NextAttempt.Equal(runAt) || !job.Created.Equal(runAt) ||
		job.Attempt != 0 || !job.Started.IsZero() || job.TriggeredBy.Key != "deploy" {
		t.Errorf("it is %+v, %v", job, err)
	}
	list, total, err := b.List(ctx, jobs.Filter{
		Jobs: b.Registry().All(), States: []jobs.State{jobs.StateDelayed}, Page: 1, PageSize: 20,
	})
	if err != nil || total != 1 || len(list) != 1 || list[0].ID != accepted.ID || !list[0].NextAttempt.Equal(runAt) {
		t.Errorf("listed as delayed are %+v, %d, %v", list, total, err)
	}
	if status, err := b.Status(ctx, b.def); err != nil || status.Counts != (jobs.Counts{Delayed: 1}) {
		t.Errorf("the counts are %+v, %v", status.Counts, err)
	}
	// asynq must not think that it is due before.
	info, err := b.inspector.GetTaskInfo(b.def.Name, accepted.ID.String())
	early := info.NextProcessAt.Sub(runAt)
	if err != nil || info.State != asynq.TaskStateScheduled || early < 0 || early >= time.Second {
		t.Errorf("asynq has %+v, %v", info, err)
	}
	if work := b.findWork(ctx, t); work.Pending || !work.Next.Equal(info.NextProcessAt) {
		t.Errorf("the look found %+v", work)
	}
}

// A time that has passed means now, and coalesces as such triggers do.
func TestTriggerAtATimeThatHasPassed(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	waiting := b.trigger(ctx, t, tasks.SyncFull)
	for _, at := range []time.Time{{}, time.Now().Add(-time.Hour), time.Now()} {
		accepted, err := b.TriggerAt(ctx, b.def, payload(tasks.SyncFull), at, jobs.Trigger{Kind: jobs.TriggeredByAPI})
		if err != nil || accepted != (jobs.Accepted{ID: waiting.ID, Coalesced: true}) {
			t.Errorf("at %s: %+v, %v", at, accepted, err)
		}
	}
}

// Before it is due, a delayed run serves no other trigger, and no other run serves its trigger.
func TestDelayedRunsDoNotCoalesce(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	ids := make(map[tasks.RunID]bool)
	for range 5 {
		ids[b.delay(ctx, t, tasks.SyncIncremental, time.Hour).ID] = true
	}
	if len(ids) != 5 {
		t.Errorf("5 triggers have %d runs", len(ids))
	}
	tickTime := b.def.Schedule.Prev(time.Now())
	b.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
	// A trigger coalesces with the waiting run of the tick, and a delayed one does not.
	if now := b.trigger(ctx, t, tasks.SyncIncremental); !now.Coalesced || now.ID != tasks.TickID(b.def.Name, tickTime) {
		t.Errorf("a trigger: %+v", now)
	}
	b.delay(ctx, t, tasks.SyncIncremental, time.Hour)
	status, err := b.Status(ctx, b.def)
	if err != nil || status.Counts != (jobs.Counts{Waiting: 1, Delayed: 6}) {
		t.Errorf("the counts are %+v, %v", status.Counts, err)
	}
	const week = 7 * 24 * time.Hour
	ttl, err := b.rdb.TTL(ctx, "codex-jobs:{user-sync}:due:incremental").Result()
	if err != nil || ttl < week+50*time.Minute || ttl > week+2*time.Hour {
		t.Errorf("the set of delayed runs ends in %s, %v", ttl, err)
	}
}

// When it is due it takes the unique key from the run that has it, and serves triggers and ticks, whether a worker has looked
// or not.
func TestDelayedRunTakesTheKeyWhenItIsDue(t *testing.T) {
	t.Parallel()
	for name, looked := range map[string]bool{"before a look": false, "after a look": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			before := b.trigger(ctx, t, tasks.SyncIncremental)
			b.delay(ctx, t, tasks.SyncIncremental, soon)
			last := b.delay(ctx, t, tasks.SyncIncremental, 2*soon)
			other := b.delay(ctx, t, tasks.SyncFull, 3*soon)
			awaitTime(t, other.RunAt)
			if looked {
				b.awaitPending(ctx, t, other.ID)
			}
			want := jobs.Accepted{ID: last.ID, Coalesced: true}
			if got := b.trigger(ctx, t, tasks.SyncIncremental); got != want {
				t.Errorf("a trigger: %+v, want the last one that is due, %s", got, want.ID)
			}
			b.wantTick(t, b.def.Schedule.Prev(time.Now()), jobs.Tick{ServedBy: last.ID.String()})
			if got := b.trigger(ctx, t, tasks.SyncFull); !got.Coalesced || got.ID != other.ID {
				t.Errorf("a trigger of another kind: %+v, want %s", got, other.ID)
			}
			if keys := b.dueKeys(ctx, t); len(keys) > 0 {
				t.Errorf("left are %v", keys)
			}
			// The run that had the key still waits, and its start does not free the key of the other one.
			if _, err := b.StartRun(ctx, before.ID, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
				t.Fatal(err)
			}
			if got := b.trigger(ctx, t, tasks.SyncIncremental); got != want {
				t.Errorf("a trigger after the start of the former one: %+v", got)
			}
			if _, err := b.StartRun(ctx, last.ID, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
				t.Fatal(err)
			}
			if got := b.trigger(ctx, t, tasks.SyncIncremental); got.Coalesced {
				t.Errorf("a trigger after its start: %+v", got)
			}
		})
	}
}

// The last one that is due is gone: the one before takes the key.
func TestDelayedRunBeforeOneThatIsGone(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	first, last := b.delay(ctx, t, tasks.SyncFull, soon), b.delay(ctx, t, tasks.SyncFull, 2*soon)
	if err := b.inspector.DeleteTask(b.def.Name, last.ID.String()); err != nil {
		t.Fatal(err)
	}
	awaitTime(t, last.RunAt)
	if got := b.trigger(ctx, t, tasks.SyncFull); got.ID != first.ID || !got.Coalesced {
		t.Errorf("a trigger: %+v, want it coalesced with %s", got, first.ID)
	}
}

// A delayed run that has begun, was cancelled, or has gone otherwise, takes no key.
func TestDelayedRunThatTakesNoKey(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context, *testing.T, *testBundle, tasks.RunID){
		"begun": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			if _, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc")); err != nil {
				t.Error(err)
			}
			if keys := b.dueKeys(ctx, t); len(keys) > 0 {
				t.Errorf("left are %v", keys)
			}
		},
		"begun by a worker of the release before": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			if _, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc")); err != nil {
				t.Error(err)
			}
		},
		"cancelled": func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			if removed, err := b.Cancel(ctx, id, jobs.Trigger{}); err != nil || !removed {
				t.Errorf("cancelling: %v, %v", removed, err)
			}
			if keys := b.dueKeys(ctx, t); len(keys) > 0 {
				t.Errorf("left are %v", keys)
			}
		},
		"deleted by asynq": func(_ context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			if err := b.inspector.DeleteTask(b.def.Name, id.String()); err != nil {
				t.Error(err)
			}
		},
		"archived by asynq": func(_ context.Context, t *testing.T, b *testBundle, id tasks.RunID) {
			if err := b.inspector.ArchiveTask(b.def.Name, id.String()); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			delayed := b.delay(ctx, t, tasks.SyncFull, soon)
			end(ctx, t, b, delayed.ID)
			awaitTime(t, delayed.RunAt)
			if got := b.trigger(ctx, t, tasks.SyncFull); got.Coalesced {
				t.Errorf("a trigger coalesced with %s", got.ID)
			}
		})
	}
}

// The process that accepted a delayed run died before it wrote that the run will take its key. The run is there all the same.
func TestDelayedRunOfADeadProcess(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	delayed := b.delay(ctx, t, tasks.SyncFull, soon)
	if err := b.rdb.Del(ctx, b.dueKeys(ctx, t)...).Err(); err != nil {
		t.Fatal(err)
	}
	b.awaitPending(ctx, t, delayed.ID)
	if got := b.trigger(ctx, t, tasks.SyncFull); got.Coalesced || len(b.pending(t)) != 2 {
		t.Errorf("a trigger: %+v, and %d wait", got, len(b.pending(t)))
	}
}

func TestCancelDelayed(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	delayed := b.delay(ctx, t, tasks.SyncFull, soon)
	if removed, err := b.Cancel(ctx, delayed.ID, jobs.Trigger{}); err != nil || !removed {
		t.Fatalf("cancelling: %v, %v", removed, err)
	}
	if _, err := b.Find(ctx, delayed.ID); !errors.Is(err, jobs.ErrNoJob) {
		t.Errorf("it is still there: %v", err)
	}
	if keys, err := b.rdb.Keys(ctx, "codex-jobs:*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left are %v, %v", keys, err)
	}
}

// What removes ended runs, and damaged ones, leaves delayed ones alone.
func TestDelayedRunIsKept(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	delayed := b.delay(ctx, t, tasks.SyncFull, time.Hour)
	b.def.KeepCompleted, b.def.KeepFailed = 0, 0
	if err := b.Trim(ctx, b.def); err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Cleanup(ctx, b.def, time.Now().Add(400*24*time.Hour), jobs.Trigger{}); err != nil || removed != (jobs.Removed{}) {
		t.Errorf("cleaned up %+v, %v", removed, err)
	}
	b.findWork(ctx, t)
	if job, err := b.Find(ctx, delayed.ID); err != nil || job.State != jobs.StateDelayed {
		t.Errorf("it is %+v, %v", job, err)
	}
}

// The dashboard cannot let it begin before its time, on no road.
func TestDashboardAndDelayedRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	queue, _ := b.OurQueue(b.def.Queue())
	delayed := b.delay(ctx, t, tasks.SyncFull, time.Hour)
	for name, change := range map[string]func(context.Context, jobs.Queue, string, jobs.Trigger) error{
		"run": b.RunTask, "archive": b.ArchiveTask,
	} {
		if err := change(ctx, queue, delayed.ID.String(), jobs.Trigger{}); !errors.Is(err, jobs.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Retry(ctx, delayed.ID, ""); !errors.Is(err, jobs.ErrNotFailed) {
		t.Errorf("retrying: %v", err)
	}
	b.wantState(t, delayed.ID.String(), asynq.TaskStateScheduled)
	if err := b.RemoveTask(ctx, queue, delayed.ID.String(), jobs.Trigger{}); err != nil {
		t.Errorf("removing: %v", err)
	}
	// One that is due is as any other.
	due := b.delay(ctx, t, tasks.SyncFull, soon)
	awaitTime(t, due.RunAt)
	if err := b.RunTask(ctx, queue, due.ID.String(), jobs.Trigger{}); err != nil {
		t.Error(err)
	}
	b.wantState(t, due.ID.String(), asynq.TaskStatePending)
}

// The ID of a delayed run can be another run's by chance. Then it gets another one. An answer that was lost is no such chance.
func TestDelayedRunsOfOneMillisecond(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		own  bool // the task that is there is the trigger's own
		runs int64
	}{"another run": {false, 3}, "a lost answer": {true, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			hook := &conflicting{own: test.own}
			rdb := redis.NewClient(b.rdb.Options())
			t.Cleanup(func() { _ = rdb.Close() })
			rdb.AddHook(hook)
			j := jobs.New(rdb, b.Registry(), slog.New(slog.DiscardHandler))
			b.delay(ctx, t, tasks.SyncIncremental, time.Hour) // so that Redis knows the script
			at := time.Now().Add(time.Hour)
			accepted, err := j.TriggerAt(ctx, b.def, payload(tasks.SyncFull), at, jobs.Trigger{Kind: jobs.TriggeredByAPI})
			if err != nil {
				t.Fatal(err)
			}
			if !hook.done {
				t.Fatal("the hook has seen no task being scheduled")
			}
			if _, err := b.Find(ctx, accepted.ID); err != nil {
				t.Errorf("%s is not there: %v", accepted.ID, err)
			}
			if n, err := b.rdb.ZCard(ctx, key("scheduled")).Result(); err != nil || n != test.runs {
				t.Errorf("%d runs are there, %v; want %d", n, err, test.runs)
			}
		})
	}
}

// conflicting sends the first script that schedules a task twice, so the answer is that there is a task with the ID. Unless own
// is set, that task is another trigger's.
type conflicting struct{ own, done bool }

// DialHook implements redis.Hook.
func (*conflicting) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (*conflicting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements redis.Hook.
func (c *conflicting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if c.done || cmd.Name() != "evalsha" || len(args) < 6 || args[4] != key("scheduled") {
			return next(ctx, cmd)
		}
		first := slices.Clone(args)
		for i, arg := range first {
			message, ok := arg.([]byte)
			at := bytes.Index(message, []byte("codex-accepted"))
			if !ok || at < 0 || c.own {
				continue
			}
			other := bytes.Clone(message)
			copy(other[at+len("codex-accepted")+2:], "ANOTHERTRIGGER") // in the place of what tells the triggers apart
			first[i] = other
		}
		c.done = next(ctx, redis.NewCmd(ctx, first...)) == nil // otherwise Redis does not know the script yet
		return next(ctx, cmd)
	}
}
