package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// A worker holds a lease and an asynq Server only while there is work, and it never runs more handlers than its concurrency.

func done(context.Context, *jobtype.Attempt) (any, error) { return "done", nil }

// idle waits until no lease is held and no Server lives.
func (b *testBundle) idle(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, "the workers to be idle", func() bool {
		leases, err := b.rdb.Keys(t.Context(), "codex-jobs:*:lease*").Result()
		if err != nil {
			t.Fatal(err)
		}
		servers, err := b.inspector.Servers()
		if err != nil {
			t.Fatal(err)
		}
		return len(leases) == 0 && len(servers) == 0
	})
}

func TestIdleWorkersHoldNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for range 2 {
		b.start(t, worker.Options{}, done)
	}
	for range 3 {
		b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
		b.idle(t)
	}
}

// A worker finds work whose announcement was lost within about a second.
func TestUnannouncedWork(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.start(t, worker.Options{}, done)
	b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	b.idle(t)
	id := tasks.TriggerID("user-sync", time.Now())
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(t.Context(), b.user.NewTask(id, []byte("{}"), nil)); err != nil {
		t.Fatal(err)
	}
	b.await(t, id.String(), asynq.TaskStateCompleted)
}

// A lost worker's run goes on, even if asynq has no lease for it.
func TestLostRun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	if err := b.rdb.LMove(t.Context(), "asynq:{user-sync}:pending", "asynq:{user-sync}:active", "RIGHT", "LEFT").Err(); err != nil {
		t.Fatal(err)
	}
	expired := redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: id}
	if err := b.rdb.ZAdd(t.Context(), "asynq:{user-sync}:lease", expired).Err(); err != nil {
		t.Fatal(err)
	}
	b.start(t, worker.Options{}, done)
	if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 0 {
		t.Errorf("retried %d times", info.Retried)
	}
}

// A job type with two leases has two active runs, over all workers, and never three.
func TestTwoLeases(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.PerWorker, d.Overall = 2, 2 })
	var active, most atomic.Int32
	both, proceed := make(chan struct{}, 10), make(chan struct{})
	for range 3 {
		b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) {
			most.Store(max(most.Load(), active.Add(1)))
			defer active.Add(-1)
			both <- struct{}{}
			<-proceed
			return nil, nil
		})
	}
	var ids []string
	for range 4 { // a trigger while a run waits is no new run, so trigger again when that has begun
		ids = append(ids, b.trigger(t, "user-sync", tasks.SyncFull), b.trigger(t, "user-sync", tasks.SyncIncremental))
		if len(ids) == 2 {
			testbed.Receive(t, "a run", both)
			testbed.Receive(t, "another one beside it", both)
		}
	}
	close(proceed)
	for _, id := range ids {
		b.await(t, id, asynq.TaskStateCompleted)
	}
	if n := most.Load(); n != 2 {
		t.Errorf("%d runs at a time", n)
	}
}

// A job type without a limit over all workers has as many active runs on each worker as it may have there. A run that fails, and
// one that is released, do not disturb the others.
func TestSeveralRunsOnAWorker(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.PerWorker, d.Overall, d.KeepCompleted = 4, 0, 100 })
	const runs = 40
	var ids []string
	client := asynq.NewClientFromRedisClient(b.rdb)
	for range runs {
		id := tasks.TriggerID("user-sync", time.Now())
		if _, err := client.EnqueueContext(t.Context(), b.user.NewTask(id, []byte("{}"), nil)); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id.String())
	}
	var all, most, handled atomic.Int32
	for range 2 {
		var active atomic.Int32
		b.start(t, worker.Options{Concurrency: 5}, func(_ context.Context, a *jobtype.Attempt) (any, error) {
			n := active.Add(1)
			defer active.Add(-1)
			most.Store(max(most.Load(), all.Add(1)))
			defer all.Add(-1)
			if n > 4 {
				return nil, fmt.Errorf("%d runs at a time", n)
			}
			time.Sleep(20 * time.Millisecond)
			handled.Add(1)
			if a.ID.String() == ids[3] {
				return nil, jobtype.Permanent(errors.New("not this one"))
			}
			return "done", nil
		})
	}
	for i, id := range ids {
		want := asynq.TaskStateCompleted
		if i == 3 {
			want = asynq.TaskStateArchived
		}
		b.await(t, id, want)
	}
	if n := handled.Load(); n != runs {
		t.Errorf("%d attempts at %d runs", n, runs)
	}
	if n := most.Load(); n < 5 {
		t.Errorf("at most %d runs at a time on two workers", n)
	}
	b.idle(t)
}

// The handlers of a busy worker wait for a place, and keep what they have.
func TestSeveralRunsShareAWorkersPlaces(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.PerWorker, d.Overall, d.KeepCompleted = 4, 0, 100 })
	var active, most atomic.Int32
	handler := func(context.Context, *jobtype.Attempt) (any, error) {
		most.Store(max(most.Load(), active.Add(1)))
		defer active.Add(-1)
		time.Sleep(10 * time.Millisecond)
		return "done", nil
	}
	var ids []string
	client := asynq.NewClientFromRedisClient(b.rdb)
	for range 10 {
		for _, def := range b.Registry().All() {
			id := tasks.TriggerID(def.Name, time.Now())
			if _, err := client.EnqueueContext(t.Context(), def.NewTask(id, []byte("{}"), nil)); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id.String())
		}
	}
	b.start(t, worker.Options{Concurrency: 2}, handler)
	for _, id := range ids {
		b.await(t, id, asynq.TaskStateCompleted)
	}
	if n := most.Load(); n != 2 {
		t.Errorf("%d handlers at a time, want 2", n)
	}
}

// A worker's concurrency bounds all its handlers, those of ranges included.
func TestConcurrencyBoundsRanges(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var active, most atomic.Int32
	handler, _ := syncOf(500, workFunc(func(ctx context.Context, batch []syncrun.Record) error {
		most.Store(max(most.Load(), active.Add(1)))
		defer active.Add(-1)
		return wait(2*time.Millisecond)(ctx, batch)
	}))
	b.start(t, worker.Options{Concurrency: 2}, handler)
	var ids []string
	for _, job := range b.Registry().Names() {
		ids = append(ids, b.trigger(t, job, tasks.SyncFull))
	}
	for _, id := range ids {
		b.await(t, id, asynq.TaskStateCompleted)
	}
	if n := most.Load(); n > 2 {
		t.Errorf("%d handlers worked at a time, want at most 2", n)
	}
}

// If Redis hangs, a worker still stops within the 10 s after which container engines kill, whatever it does, and leaves no
// Server.
func TestStopWhileRedisHangs(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]string{"idle": "", "at work": "started", "lingering": "completed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			proxy := testbed.NewProxy(t, b.options.Addr)
			direct := b.options.Addr
			b.options.Addr = proxy.Addr
			started := make(chan struct{}, 1)
			stop := b.start(t, worker.Options{}, func(_ context.Context, a *jobtype.Attempt) (any, error) {
				started <- struct{}{}
				if when == "started" {
					<-a.Stop
					return nil, context.Canceled
				}
				return nil, nil
			})
			b.options.Addr = direct
			if when != "" {
				id := b.trigger(t, "user-sync", tasks.SyncFull)
				testbed.Receive(t, "the run", started)
				if when == "completed" {
					b.await(t, id, asynq.TaskStateCompleted)
				}
			}
			proxy.Freeze()
			defer proxy.Thaw()
			begun := time.Now()
			stop()
			if took := time.Since(begun); took > 9*time.Second {
				t.Errorf("it took %s to stop", took)
			}
		})
	}
}

// Redis hangs while a Server starts. Nothing leaks, and the run goes on when Redis is back.
func TestRedisHangsAtTheStart(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	proxy := testbed.NewProxy(t, b.options.Addr)
	direct := b.options.Addr
	b.options.Addr = proxy.Addr
	b.start(t, worker.Options{}, done)
	b.options.Addr = direct
	testbed.Eventually(t, "the worker to be live", func() bool {
		n, err := b.Live(t.Context(), jobs.RoleWorker)
		return err == nil && n == 1
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	proxy.Freeze()
	time.AfterFunc(5*time.Second, proxy.Thaw)
	// The task can be one that was handed out while the answer was lost: a minute passes until it is put back.
	b.awaitWithin(t, testbed.WaitLimit+2*time.Minute, id, asynq.TaskStateCompleted)
	b.idle(t)
}

// counting is a hook that counts the commands of a client.
type counting struct{ n *atomic.Int64 }

func (counting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// An idle worker sends Redis only heartbeats, and one command for each job type once a second.
func TestIdleCommands(t *testing.T) {
	t.Parallel()
	const seconds, most = 5, 3 // 3 a second without job types
	for _, types := range []int{3, 9} {
		t.Run(fmt.Sprint(types), func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			var definitions []tasks.Definition
			handlers := make(map[string]jobtype.Handler)
			for i := range types {
				def := codex.UserSync
				def.Name = fmt.Sprintf("sync-%d", i)
				definitions = append(definitions, def)
				handlers[def.Name] = done
			}
			registry, err := tasks.NewRegistry(definitions...)
			if err != nil {
				t.Fatal(err)
			}
			rdb := b.connect()
			t.Cleanup(func() { _ = rdb.Close() })
			var commands atomic.Int64
			rdb.AddHook(counting{&commands})
			w, err := worker.New(jobs.New(rdb, registry, b.logger), handlers, worker.Options{Concurrency: 1, Connect: b.connect}, b.logger)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { w.Run(ctx) })
			defer running.Wait()
			defer cancel()
			testbed.Eventually(t, "the first look", func() bool { return commands.Load() >= int64(types) })
			before := commands.Load()
			time.Sleep(seconds * time.Second) // what is counted
			if n := commands.Load() - before; n > seconds*int64(most+types)+int64(types) {
				t.Errorf("%d commands in %d s with %d job types", n, seconds, types)
			}
		})
	}
}
