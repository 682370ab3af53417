package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// maintain starts Maintain, which ends with the test.
func (b *testBundle) maintain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Maintain(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// Entries whose task is damaged are in the way of nothing: not of status, lists, single jobs, metrics nor control. Maintain removes
// them, and then asynq's own tools work again. In each list there is one of each damage: no hash, a hash without a message, a hash
// with nothing that asynq knows, a message that is none.
func TestDamagedTasks(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	sound := b.trigger(ctx, t, tasks.SyncFull).ID
	var ghosts []tasks.RunID
	for _, list := range []string{"pending", "active", "scheduled", "retry", "archived", "completed"} {
		for _, hash := range [][]string{nil, {"state", list}, {"result", "{}"}, {"msg", "nonsense", "state", list}} {
			ghost := tasks.TriggerID(b.def.Name, time.Now().Add(-time.Minute))
			_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				if hash != nil {
					p.HSet(ctx, key("t:")+ghost.String(), hash)
				}
				switch list {
				case "active":
					p.ZAdd(ctx, key("lease"), redis.Z{Score: float64(time.Now().Add(time.Hour).Unix()), Member: ghost.String()})
					fallthrough
				case "pending":
					p.LPush(ctx, key(list), ghost.String())
				default:
					p.ZAdd(ctx, key(list), redis.Z{Score: 99999999999, Member: ghost.String()})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			ghosts = append(ghosts, ghost)
		}
	}
	works := func() {
		t.Helper()
		if s, err := b.Status(ctx, b.def); err != nil || s.Counts.Waiting < 1 {
			t.Errorf("status: %+v, %v", s, err)
		} else if slices.ContainsFunc(s.Active, func(a jobs.Active) bool { return a.ID == "" }) {
			t.Errorf("status: an active run has no ID: %+v", s.Active)
		}
		page, _, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: jobs.States(), Page: 1, PageSize: 100})
		if err != nil || len(page) != 1 || page[0].ID != sound {
			t.Errorf("list: %+v, %v; want %s", page, err, sound)
		}
		if job, err := b.Find(ctx, sound); err != nil || job.State != jobs.StateWaiting {
			t.Errorf("%s: %+v, %v", sound, job, err)
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(b.Collector())
		if families, err := registry.Gather(); err != nil || len(families) < 2 { // redis_up is always there
			t.Errorf("metrics: %v, %v", families, err)
		}
		if err := errors.Join(b.Pause(ctx, b.def, jobs.Trigger{}), b.Resume(ctx, b.def, jobs.Trigger{}), b.Trim(ctx, b.def)); err != nil {
			t.Error(err)
		}
		if _, err := b.Cleanup(ctx, b.def, time.Now(), jobs.Trigger{}); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	}
	works()
	for _, ghost := range ghosts {
		if job, err := b.Find(ctx, ghost); !errors.Is(err, jobs.ErrNoJob) {
			t.Errorf("found %+v, %v", job, err)
		}
		if removed, err := b.Cancel(ctx, ghost, jobs.Trigger{}); !errors.Is(err, jobs.ErrNoJob) {
			t.Errorf("cancelled: %v, %v", removed, err)
		}
		if err := b.Retry(ctx, ghost, ""); !errors.Is(err, jobs.ErrNoJob) {
			t.Errorf("retried: %v", err)
		}
	}
	b.maintain(t)
	testbed.Eventually(t, "the entries to be removed", func() bool {
		info, err := b.inspector.GetQueueInfo(b.def.Name)
		return err == nil && info.Size == 1
	})
	works()
	for _, ghost := range ghosts {
		if keys, err := b.rdb.Keys(ctx, "*"+ghost.String()+"*").Result(); err != nil || len(keys) > 0 {
			t.Errorf("left: %s, %v", strings.Join(keys, ", "), err)
		}
	}
}

// A long list is repaired page by page, and nothing that is sound is removed.
func TestRepairOfLongLists(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	const entries = 1700
	for i := range entries {
		id := tasks.TriggerID(b.def.Name, time.Now()).String()
		_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.LPush(ctx, key("pending"), id)
			if i%3 > 0 {
				p.HSet(ctx, key("t:")+id, "msg", "has "+id, "state", "pending")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.maintain(t)
	testbed.Eventually(t, "the damaged third to be removed", func() bool {
		n, err := b.rdb.LLen(ctx, key("pending")).Result()
		return err == nil && n == entries-(entries+2)/3
	})
}

// What is enqueued is visible, after Redis was flushed and after the queue was deleted with asynq's tools. A queue that was paused
// when it was deleted is still paused, and says so.
func TestQueueThatVanished(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(*testBundle, context.Context) error{
		"flushed": func(b *testBundle, ctx context.Context) error { return b.rdb.FlushDB(ctx).Err() },
		"deleted": func(b *testBundle, _ context.Context) error { return b.inspector.DeleteQueue(b.def.Name, true) },
		"deleted while it was paused": func(b *testBundle, ctx context.Context) error {
			return errors.Join(b.Pause(ctx, b.def, jobs.Trigger{}), b.inspector.DeleteQueue(b.def.Name, true))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			b.trigger(ctx, t, tasks.SyncFull) // from now on asynq's client believes that Redis knows the queue
			if err := vanish(b, ctx); err != nil {
				t.Fatal(err)
			}
			id := b.trigger(ctx, t, tasks.SyncIncremental).ID
			info, err := b.inspector.GetQueueInfo(b.def.Name)
			if err != nil || info.Pending != 1 {
				t.Fatalf("asynq's tools see %+v, %v; want one pending task", info, err)
			}
			s, err := b.Status(ctx, b.def)
			if want := name == "deleted while it was paused"; err != nil || s.Counts.Waiting != 1 || s.Paused != want || info.Paused != want {
				t.Errorf("status %+v, asynq says paused=%v, %v; want one waiting run, paused=%v", s, info.Paused, err, want)
			}
			if job, err := b.Find(ctx, id); err != nil || job.State != jobs.StateWaiting {
				t.Errorf("%+v, %v", job, err)
			}
			// The queues of the other job types are known again, too.
			b.maintain(t)
			testbed.Eventually(t, "all queues to be known", func() bool {
				queues, err := b.inspector.Queues()
				return err == nil && len(queues) == len(b.Registry().Names())
			})
		})
	}
}

// The same for a process that already maintains the queues when they vanish.
func TestQueuesAreKnownAgain(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.maintain(t)
	known := func() bool {
		queues, err := b.inspector.Queues()
		return err == nil && len(queues) == len(b.Registry().Names())
	}
	testbed.Eventually(t, "all queues to be known", known)
	if err := b.rdb.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	testbed.Within(t, 20*time.Second, "all queues to be known again", known)
}

// Only schedules of our own job types count, and asking for them writes nothing.
func TestForeignSchedule(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	connect := asynq.RedisClientOpt{Addr: b.rdb.Options().Addr, Password: b.rdb.Options().Password, DB: b.rdb.Options().DB}
	foreign := asynq.NewScheduler(connect, &asynq.SchedulerOpts{HeartbeatInterval: time.Second, Logger: telemetry.NewAsynqLogger(slog.New(slog.DiscardHandler))})
	for _, job := range []string{"email:send", "user-sync"} {
		if _, err := foreign.Register("@every 1h", asynq.NewTask(job, []byte(`{"a":1}`)), asynq.Queue("user-sync")); err != nil {
			t.Fatal(err)
		}
	}
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	defer foreign.Shutdown()
	testbed.Eventually(t, "its entries", func() bool {
		entries, err := b.inspector.SchedulerEntries()
		return err == nil && len(entries) == 2
	})
	schedules, err := b.Schedules(ctx, time.Now())
	if err != nil || len(schedules) != 1 || schedules[0].Job != "user-sync" || schedules[0].Spec != "@every 1h" || schedules[0].Every != time.Hour {
		t.Errorf("%+v, %v; want the one of user-sync", schedules, err)
	}
}
