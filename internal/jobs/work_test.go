package jobs_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// key is a key of asynq's for the user sync's queue.
func key(what string) string { return "asynq:{user-sync}:" + what }

// take dequeues the next task, as a worker does that then dies.
func (b *testBundle) take(ctx context.Context, t *testing.T) string {
	t.Helper()
	id, err := b.rdb.LMove(ctx, key("pending"), key("active"), "RIGHT", "LEFT").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.HSet(ctx, key("t:")+id, "state", "active").Err(); err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *testBundle) lease(ctx context.Context, t *testing.T, id string, until time.Time) {
	t.Helper()
	if err := b.rdb.ZAdd(ctx, key("lease"), redis.Z{Score: float64(until.Unix()), Member: id}).Err(); err != nil {
		t.Fatal(err)
	}
}

func (b *testBundle) findWork(ctx context.Context, t *testing.T) jobs.Work {
	t.Helper()
	work, err := b.FindWork(ctx, b.def.Name)
	if err != nil {
		t.Fatal(err)
	}
	return work
}

func (b *testBundle) wantState(t *testing.T, id string, want asynq.TaskState) {
	t.Helper()
	if info, err := b.inspector.GetTaskInfo(b.def.Name, id); err != nil || info.State != want || info.Retried != 0 || info.LastErr != "" {
		t.Errorf("%s: %+v, %v; want it %s, at no cost", id, info, err, want)
	}
}

func TestHasTasks(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	queues := b.Registry().Names()
	want := func(want ...bool) {
		t.Helper()
		if has, err := b.HasTasks(ctx, queues); err != nil || !slices.Equal(has, want) {
			t.Errorf("%v, %v; want %v", has, err, want)
		}
	}
	want(false, false, false)
	b.trigger(ctx, t, tasks.SyncFull)
	want(true, false, false)
	id := b.take(ctx, t)
	want(true, false, false)
	if err := b.rdb.LRem(ctx, key("active"), 0, id).Err(); err != nil {
		t.Fatal(err)
	}
	want(false, false, false)
	if err := b.rdb.ZAdd(ctx, key("completed"), redis.Z{Member: id}).Err(); err != nil {
		t.Fatal(err)
	}
	want(false, false, false) // what has ended is nothing to do
}

func TestFindWork(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	if work := b.findWork(ctx, t); work.Pending || !work.Next.IsZero() {
		t.Errorf("nothing is there: %+v", work)
	}
	b.trigger(ctx, t, tasks.SyncFull)
	if work := b.findWork(ctx, t); !work.Pending {
		t.Errorf("a run waits: %+v", work)
	}
	if err := b.Pause(ctx, b.def, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	if work := b.findWork(ctx, t); work.Pending {
		t.Errorf("a run waits, but its job type is paused: %+v", work)
	}
}

// A lost worker's task is put back after the grace time, ahead of all others and at no cost, in a paused queue too.
func TestRescue(t *testing.T) {
	t.Parallel()
	for name, paused := range map[string]bool{"running": false, "paused": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			lost := b.trigger(ctx, t, tasks.SyncFull).ID.String()
			if got := b.take(ctx, t); got != lost {
				t.Fatalf("took %s", got)
			}
			waiting := b.trigger(ctx, t, tasks.SyncIncremental).ID.String()
			if paused {
				if err := b.Pause(ctx, b.def, jobs.Trigger{}); err != nil {
					t.Fatal(err)
				}
			}
			b.lease(ctx, t, lost, time.Now().Add(-25*time.Second))
			if work := b.findWork(ctx, t); len(work.Rescued) > 0 {
				t.Errorf("rescued before its time: %+v", work)
			}
			b.wantState(t, lost, asynq.TaskStateActive)
			b.lease(ctx, t, lost, time.Now().Add(-31*time.Second))
			if work := b.findWork(ctx, t); !slices.Equal(work.Rescued, []string{lost}) || work.Pending == paused {
				t.Errorf("%+v; want %s rescued", work, lost)
			}
			b.wantState(t, lost, asynq.TaskStatePending)
			if n, err := b.rdb.ZCard(ctx, key("lease")).Result(); err != nil || n != 0 {
				t.Errorf("%d leases are left, %v", n, err)
			}
			if next := b.take(ctx, t); next != lost {
				t.Errorf("the next one is %s, want %s before %s", next, lost, waiting)
			}
			if work := b.findWork(ctx, t); len(work.Rescued) > 0 {
				t.Errorf("rescued twice: %+v", work)
			}
		})
	}
}

// An active task without a lease, which asynq would never find, gets one. If its worker lives, it renews the lease.
func TestActiveWithoutLease(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.trigger(ctx, t, tasks.SyncFull)
	id := b.take(ctx, t)
	if work := b.findWork(ctx, t); work.Pending || len(work.Rescued) > 0 {
		t.Errorf("%+v; want it left alone at first", work)
	}
	until, err := b.rdb.ZScore(ctx, key("lease"), id).Result()
	if left := time.Until(time.Unix(int64(until), 0)); err != nil || left < 20*time.Second || left > 31*time.Second {
		t.Errorf("its lease lasts for %s, %v", left, err)
	}
	b.lease(ctx, t, id, time.Now().Add(-time.Minute)) // so much later
	if work := b.findWork(ctx, t); !slices.Equal(work.Rescued, []string{id}) {
		t.Errorf("%+v; want %s rescued", work, id)
	}
}

// Due tasks become pending, in a paused queue too, and the look returns when the next one is due.
func TestForward(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	if err := b.Pause(ctx, b.def, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	id := b.trigger(ctx, t, tasks.SyncFull).ID.String()
	next := time.Now().Add(time.Hour).Truncate(time.Second)
	for _, state := range []string{"retry", "scheduled"} {
		at := func(due time.Time) {
			t.Helper()
			b.take(ctx, t)
			if err := b.rdb.LRem(ctx, key("active"), 0, id).Err(); err != nil {
				t.Fatal(err)
			}
			if err := b.rdb.HSet(ctx, key("t:")+id, "state", state).Err(); err != nil {
				t.Fatal(err)
			}
			if err := b.rdb.ZAdd(ctx, key(state), redis.Z{Score: float64(due.Unix()), Member: id}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		at(next)
		if work := b.findWork(ctx, t); !work.Next.Equal(next) || len(b.pending(t)) > 0 {
			t.Errorf("%s: %+v, want nothing before %s", state, work, next)
		}
		if err := b.rdb.ZAdd(ctx, key(state), redis.Z{Score: float64(time.Now().Unix()), Member: id}).Err(); err != nil {
			t.Fatal(err)
		}
		if work := b.findWork(ctx, t); !work.Next.IsZero() {
			t.Errorf("%s: %+v, want nothing to come", state, work)
		}
		b.wantState(t, id, asynq.TaskStatePending)
		if info := b.pending(t); len(info) != 1 {
			t.Errorf("%s: %d wait", state, len(info))
		}
	}
}

// A task of which only the ID is left is removed from each list that a look reads. It does no harm to other tasks.
func TestTasksThatAreGone(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]func(*redis.Client, context.Context) error{
		"retry": func(rdb *redis.Client, ctx context.Context) error {
			return rdb.ZAdd(ctx, key("retry"), redis.Z{Member: "ghost"}).Err()
		},
		"scheduled": func(rdb *redis.Client, ctx context.Context) error {
			return rdb.ZAdd(ctx, key("scheduled"), redis.Z{Member: "ghost"}).Err()
		},
		"lease": func(rdb *redis.Client, ctx context.Context) error {
			return rdb.ZAdd(ctx, key("lease"), redis.Z{Member: "ghost"}).Err()
		},
		"active": func(rdb *redis.Client, ctx context.Context) error {
			if err := rdb.ZAdd(ctx, key("lease"), redis.Z{Member: "ghost"}).Err(); err != nil {
				return err
			}
			return rdb.LPush(ctx, key("active"), "ghost").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			if err := list(b.rdb, ctx); err != nil {
				t.Fatal(err)
			}
			id := b.trigger(ctx, t, tasks.SyncFull).ID.String()
			if work := b.findWork(ctx, t); !work.Pending || len(work.Rescued) > 0 || !work.Next.IsZero() {
				t.Errorf("%+v", work)
			}
			keys, err := b.rdb.Keys(ctx, "asynq:{user-sync}:*").Result()
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(keys)
			if want := []string{key("pending"), key("t:") + id}; !slices.Equal(keys, want) {
				t.Errorf("left: %s", strings.Join(keys, ", "))
			}
		})
	}
}

// Whatever gives a queue something to do announces the queue.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	// A channel has no database: other tests announce job types of the usual names at the same time.
	b.def.Name = "announced-sync"
	registry, err := tasks.NewRegistry(b.def)
	if err != nil {
		t.Fatal(err)
	}
	b.Jobs = jobs.New(b.rdb, registry, slog.New(slog.DiscardHandler))
	announced, stop := b.Announcements(ctx)
	defer func() { _ = stop() }()
	want := func(what, queue string) {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			select {
			case message := <-announced:
				if message.Payload == "subscribed" {
					continue
				}
				if message.Payload == queue {
					return
				}
				if strings.HasPrefix(message.Payload, b.def.Name) {
					t.Errorf("%s announced %q, want %q", what, message.Payload, queue)
				}
			case <-deadline:
				t.Fatalf("%s was not announced", what)
			}
		}
	}
	time.AfterFunc(30*time.Second, func() { _ = stop() }) // a subscription that never comes
	for subscribed := false; !subscribed; {
		b.rdb.Publish(ctx, "codex-jobs:work", "subscribed")
		select {
		case message, ok := <-announced:
			if !ok {
				t.Fatal("not subscribed in time")
			}
			subscribed = message.Payload == "subscribed"
		case <-time.After(10 * time.Millisecond):
		}
	}
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	want("a trigger", b.def.Name)
	if err := b.Resume(ctx, b.def, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	want("a resume", b.def.Name)
	if err := b.EnqueueRange(ctx, b.def, tasks.RangeID{Run: id}, nil); err != nil {
		t.Fatal(err)
	}
	want("a range", b.def.RangeQueue())
	if err := b.inspector.ArchiveTask(b.def.Name, id.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.Retry(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	want("a retry by hand", b.def.Name)
}

// A job type has as many leases as its definition says.
func TestSeveralLeases(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	def := b.def
	def.Overall = 2
	b.trigger(ctx, t, tasks.SyncFull)
	var leases []*jobs.Lease
	for range 2 {
		lease, err := b.acquire(ctx, def)
		if err != nil || lease == nil {
			t.Fatalf("%v, %v", lease, err)
		}
		leases = append(leases, lease)
	}
	if third, err := b.acquire(ctx, def); err != nil || third != nil {
		t.Errorf("a third lease: %v, %v", third, err)
	}
	for _, lease := range leases {
		if err := lease.Renew(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := leases[0].Release(ctx); err != nil {
		t.Fatal(err)
	}
	if again, err := b.acquire(ctx, def); err != nil || again == nil {
		t.Errorf("after a release: %v, %v", again, err)
	}
}
