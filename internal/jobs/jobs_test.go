package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

type testBundle struct {
	*jobs.Jobs
	rdb       *redis.Client
	inspector *asynq.Inspector
	def       tasks.Definition
}

func setup(t *testing.T) (*testBundle, context.Context) {
	t.Helper()
	rdb := redistest.Client(t, redistest.Options(t))
	registry, err := tasks.NewRegistry(codex.UserSync, codex.ProjectSync, codex.IssueSync)
	if err != nil {
		t.Fatal(err)
	}
	def, _ := registry.Lookup("user-sync")
	b := &testBundle{
		Jobs: jobs.New(rdb, registry, slog.New(slog.DiscardHandler)), rdb: rdb,
		inspector: asynq.NewInspectorFromRedisClient(rdb), def: def,
	}
	return b, t.Context()
}

// acquire takes a lease of a job type that has work.
func (b *testBundle) acquire(ctx context.Context, def tasks.Definition) (*jobs.Lease, error) {
	work, err := b.TakeWork(ctx, def)
	return work.Lease, err
}

func payload(syncType string) *tasks.SyncPayload { return &tasks.SyncPayload{SyncType: syncType} }

func (b *testBundle) trigger(ctx context.Context, t *testing.T, syncType string) jobs.Accepted {
	t.Helper()
	accepted, err := b.Trigger(ctx, b.def, payload(syncType))
	if err != nil {
		t.Fatal(err)
	}
	return accepted
}

func (b *testBundle) pending(t *testing.T) []*asynq.TaskInfo {
	t.Helper()
	list, err := b.inspector.ListPendingTasks(b.def.Name, asynq.PageSize(1000))
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		t.Fatal(err)
	}
	return list
}

func TestTriggerCoalesces(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)

	first := b.trigger(ctx, t, tasks.SyncIncremental)
	if first.Coalesced {
		t.Error("the first trigger was coalesced")
	}
	second := b.trigger(ctx, t, tasks.SyncIncremental)
	if !second.Coalesced || second.ID != first.ID {
		t.Errorf("second trigger: %+v, want coalesced with %s", second, first.ID)
	}
	full := b.trigger(ctx, t, tasks.SyncFull)
	if full.Coalesced || full.ID == first.ID {
		t.Errorf("a full run was coalesced with an incremental one: %+v", full)
	}
	if n := len(b.pending(t)); n != 2 {
		t.Errorf("%d runs wait, want 2", n)
	}

	// Once the run has begun the next one may wait.
	if _, err := b.StartRun(ctx, first.ID, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	third := b.trigger(ctx, t, tasks.SyncIncremental)
	if third.Coalesced || third.ID == first.ID {
		t.Errorf("a trigger during the run was coalesced: %+v", third)
	}
}

func TestTriggerConcurrently(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	var mu sync.Mutex
	ids := make(map[string]int)
	fresh := 0
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			accepted, err := b.Trigger(ctx, b.def, payload(tasks.SyncFull))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[accepted.ID.String()]++
			if !accepted.Coalesced {
				fresh++
			}
		})
	}
	clients.Wait()
	if len(ids) != 1 || fresh != 1 || len(b.pending(t)) != 1 {
		t.Errorf("100 triggers gave the ids %v, %d of them new, and %d waiting runs; want 1, 1 and 1", ids, fresh, len(b.pending(t)))
	}
}

// A process can die between taking the unique key and enqueueing the run.
func TestTriggerAfterADeadProcess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		age       time.Duration
		coalesced bool
	}{
		{"young: the next trigger enqueues the run that has the key", 0, true},
		{"old: the next trigger takes the key", time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			first := tasks.TriggerID(b.def.Name, time.Now().Add(-test.age))
			key := "codex-jobs:{user-sync}:waiting:full"
			payload := `{"version":1,"syncType":"full"}`
			if err := b.rdb.HSet(ctx, key, "id", first.String(), "payload", payload,
				"time", time.Now().Add(-test.age).UnixMilli()).Err(); err != nil {
				t.Fatal(err)
			}
			accepted := b.trigger(ctx, t, tasks.SyncFull)
			if accepted.Coalesced != test.coalesced || (accepted.ID == first) != test.coalesced {
				t.Errorf("got %+v, want a conflict with %s", accepted, first)
			}
			waiting := b.pending(t)
			if len(waiting) != 1 || waiting[0].ID != accepted.ID.String() || string(waiting[0].Payload) != payload {
				t.Errorf("waiting: %v", waiting)
			}
		})
	}
}

func TestTriggerTakesAStaleKey(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	first := b.trigger(ctx, t, tasks.SyncFull)
	// The run ends with the key: its worker died before the run began, and it was archived.
	if err := b.inspector.ArchiveTask(b.def.Name, first.ID.String()); err != nil {
		t.Fatal(err)
	}
	if second := b.trigger(ctx, t, tasks.SyncFull); second.Coalesced {
		t.Errorf("coalesced with a run that has ended: %+v", second)
	}
}

func TestTickIsEnqueuedOnce(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	tickTime := b.def.Schedule.Prev(time.Now())
	id := tasks.TickID(b.def.Name, tickTime)
	var enqueued atomic.Int32
	var schedulers sync.WaitGroup
	for range 20 {
		schedulers.Go(func() {
			tick, err := b.EnqueueTick(ctx, b.def, tickTime)
			if err != nil || tick.ServedBy != "" {
				t.Errorf("got %+v, %v", tick, err)
			}
			if tick.Enqueued {
				enqueued.Add(1)
			}
		})
	}
	schedulers.Wait()
	if waiting := b.pending(t); enqueued.Load() != 1 || len(waiting) != 1 || waiting[0].ID != id.String() {
		t.Fatalf("20 schedulers enqueued %d runs, waiting: %v", enqueued.Load(), waiting)
	}

	// The tick stays handled after its run has begun, ended and been removed.
	if _, err := b.StartRun(ctx, id, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if err := b.inspector.DeleteTask(b.def.Name, id.String()); err != nil {
		t.Fatal(err)
	}
	b.wantTick(t, tickTime, jobs.Tick{})
	if last, err := b.LastTick(ctx, b.def); err != nil || !last.Equal(tickTime) {
		t.Errorf("last tick %v, %v; want %v", last, err, tickTime)
	}
}

// wantTick enqueues a tick, and checks what became of it.
func (b *testBundle) wantTick(t *testing.T, tickTime time.Time, want jobs.Tick) {
	t.Helper()
	if tick, err := b.EnqueueTick(t.Context(), b.def, tickTime); err != nil || tick != want {
		t.Errorf("got %+v, %v; want %+v", tick, err, want)
	}
}

// A scheduler took the unique key for the tick's run, and enqueued the run or not. Then it died, and did not record the tick.
func TestTickThatIsHalfDone(t *testing.T) {
	t.Parallel()
	for enqueued, want := range map[bool]jobs.Tick{false: {Enqueued: true}, true: {}} {
		b, ctx := setup(t)
		tickTime := b.def.Schedule.Prev(time.Now())
		b.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
		if err := b.rdb.Del(ctx, "codex-jobs:{user-sync}:tick").Err(); err != nil {
			t.Fatal(err)
		}
		if !enqueued {
			if err := b.inspector.DeleteTask(b.def.Name, tasks.TickID(b.def.Name, tickTime).String()); err != nil {
				t.Fatal(err)
			}
		}
		b.wantTick(t, tickTime, want)
		if n := len(b.pending(t)); n != 1 {
			t.Errorf("%d runs wait, want 1", n)
		}
		if last, err := b.LastTick(ctx, b.def); err != nil || !last.Equal(tickTime) {
			t.Errorf("last tick %v, %v; want %v", last, err, tickTime)
		}
	}
}

// A scheduler that comes late must not enqueue a tick whose run has begun, even if the run has left nothing but its tick key.
func TestTickAfterItsRunBegan(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	tickTime := b.def.Schedule.Prev(time.Now())
	if _, err := b.StartRun(ctx, tasks.TickID(b.def.Name, tickTime), tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	b.wantTick(t, tickTime, jobs.Tick{})
}

func TestTickServedByAWaitingRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	waiting := b.trigger(ctx, t, tasks.SyncIncremental)
	tickTime := b.def.Schedule.Prev(time.Now())
	b.wantTick(t, tickTime, jobs.Tick{ServedBy: waiting.ID.String()})
	b.wantTick(t, tickTime, jobs.Tick{}) // the second scheduler finds it handled
	if n := len(b.pending(t)); n != 1 {
		t.Errorf("%d runs wait, want 1", n)
	}
	// A full run that waits does not serve it.
	b2, ctx := setup(t)
	b2.trigger(ctx, t, tasks.SyncFull)
	b2.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
}

// asynq's client registers a queue once in its life. A Redis that has lost its data since must know the queue again.
func TestRegister(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.trigger(ctx, t, tasks.SyncFull)
	if err := b.rdb.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again is no error
		if err := b.Register(ctx); err != nil {
			t.Fatal(err)
		}
	}
	queues, err := b.inspector.Queues()
	slices.Sort(queues)
	if want := slices.Sorted(slices.Values(b.Registry().Names())); err != nil || !slices.Equal(queues, want) {
		t.Errorf("queues %v, %v; want %v", queues, err, want)
	}
	for _, name := range queues {
		if info, err := b.inspector.GetQueueInfo(name); err != nil || info.Size != 0 {
			t.Errorf("the queue %s: %+v, %v; want an empty one", name, info, err)
		}
	}
}

func TestRunState(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := tasks.TriggerID(b.def.Name, time.Now())
	open := func() *jobs.RunState {
		t.Helper()
		state, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	first := open()
	if first.Rescued || first.Checkpoint != nil || time.Since(first.Started) > time.Minute {
		t.Fatalf("a new run's state: %+v", first)
	}
	if err := first.Save(ctx, []byte("one"), jobs.Progress{Percent: 10}); err != nil {
		t.Fatal(err)
	}
	if err := first.Release(ctx); err != nil {
		t.Fatal(err)
	}
	second := open()
	if second.Rescued || string(second.Checkpoint) != "one" || !second.Started.Equal(first.Started) {
		t.Fatalf("after its release: %+v", second)
	}
	// The first owner, woken up, can change nothing.
	for name, err := range map[string]error{
		"save": first.Save(ctx, []byte("stale"), jobs.Progress{Percent: 99}), "release": first.Release(ctx), "fail attempt": first.FailAttempt(ctx),
		"complete": first.Complete(ctx, []byte("{}")), "fail": first.Fail(ctx, errors.New("told to")),
	} {
		if !errors.Is(err, jobs.ErrFenced) {
			t.Errorf("%s by a former owner: %v", name, err)
		}
	}
	third := open() // the second died
	if !third.Rescued || third.Rescues != 1 || string(third.Checkpoint) != "one" {
		t.Fatalf("after a crash: %+v", third)
	}
	if err := third.Fail(ctx, errors.New("told to")); err != nil {
		t.Fatal(err)
	}
	if keys, err := b.rdb.Keys(ctx, "codex-jobs:*run*").Result(); err != nil || len(keys) != 0 {
		t.Errorf("left behind: %v, %v", keys, err)
	}
}

// After a lost answer go-redis, or the caller, asks again. That must change nothing.
func TestRunStateAskedTwice(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id, owner := tasks.TriggerID(b.def.Name, time.Now()), jobs.NewOwner("host:1:abc")
	for range 10 {
		state, err := b.OpenRun(ctx, id, owner)
		if err != nil || state.Rescued || state.Rescues != 0 {
			t.Fatalf("opened as %+v, %v; want nothing rescued", state, err)
		}
	}
	state, err := b.OpenRun(ctx, id, owner)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := state.Complete(ctx, []byte("{}")); err != nil {
			t.Fatalf("completing: %v", err)
		}
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	project, _ := b.Registry().Lookup("project-sync")
	if lease, err := b.acquire(ctx, b.def); err != nil || lease != nil {
		t.Fatalf("a lease without work: %v, %v", lease, err)
	}
	b.trigger(ctx, t, tasks.SyncFull)
	if _, err := b.Trigger(ctx, project, payload(tasks.SyncFull)); err != nil {
		t.Fatal(err)
	}
	if err := b.Pause(ctx, b.def, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	if lease, err := b.acquire(ctx, b.def); err != nil || lease != nil {
		t.Fatalf("a lease of a paused job type: %v, %v", lease, err)
	}
	if err := b.Resume(ctx, b.def, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	released, stop := b.Announcements(ctx)
	defer func() { _ = stop() }()

	lease, err := b.acquire(ctx, b.def)
	if err != nil || lease == nil {
		t.Fatalf("acquiring a free lease: %v, %v", lease, err)
	}
	if other, err := b.acquire(ctx, b.def); err != nil || other != nil {
		t.Fatalf("acquiring a lease that is held: %v, %v", other, err)
	}
	if other, err := b.acquire(ctx, project); err != nil || other == nil {
		t.Fatalf("acquiring another job type's lease: %v, %v", other, err)
	}
	before := lease.Until()
	if err := lease.Renew(ctx); err != nil || lease.Until().Before(before) {
		t.Fatalf("renewing: %v, until %v", err, lease.Until())
	}
	if time.Until(lease.Until()) > jobs.LeaseTTL {
		t.Errorf("the holder believes in its lease for longer than Redis keeps it")
	}
	if err := lease.Release(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case message := <-released:
		if message.Payload != b.def.Name {
			t.Errorf("announced %q", message.Payload)
		}
	case <-time.After(10 * time.Second):
		t.Error("the release was not announced")
	}
	if err := lease.Renew(ctx); !errors.Is(err, jobs.ErrLeaseLost) {
		t.Errorf("renewing a released lease: %v", err)
	}
	if other, err := b.acquire(ctx, b.def); err != nil || other == nil {
		t.Errorf("acquiring a released lease: %v, %v", other, err)
	}
}

// loseAnswer makes a client's commands fail once, as if no answer came. It is a redis.Hook.
type loseAnswer struct{ armed atomic.Bool }

func (*loseAnswer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *loseAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" && l.armed.CompareAndSwap(true, false) {
			cmd.SetErr(os.ErrDeadlineExceeded)
			return os.ErrDeadlineExceeded
		}
		return next(ctx, cmd)
	}
}

func (*loseAnswer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A command without an answer says nothing of the job: neither that there is none, nor that its state is the wrong one.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	lost := new(loseAnswer)
	b.rdb.AddHook(lost)
	lost.armed.Store(true)
	if job, err := b.Find(ctx, id); err != nil || job.ID != id || lost.armed.Load() {
		t.Errorf("looking for it: %+v, %v", job, err)
	}
	lost.armed.Store(true)
	err := b.ArchiveTask(ctx, jobs.Queue{Name: b.def.Queue(), Def: b.def}, id.String(), jobs.Trigger{})
	if err == nil || errors.Is(err, jobs.ErrState) || errors.Is(err, jobs.ErrNoJob) || lost.armed.Load() {
		t.Errorf("archiving it: %v", err)
	}
	if err := b.ArchiveTask(ctx, jobs.Queue{Name: b.def.Queue(), Def: b.def}, id.String(), jobs.Trigger{}); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := b.ArchiveTask(ctx, jobs.Queue{Name: b.def.Queue(), Def: b.def}, id.String(), jobs.Trigger{}); !errors.Is(err, jobs.ErrState) {
		t.Errorf("an archived one: %v", err)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	paused := func() bool {
		t.Helper()
		status, err := b.Status(ctx, b.def)
		if err != nil {
			t.Fatal(err)
		}
		return status.Paused
	}
	if paused() {
		t.Error("paused before anything was done")
	}
	for range 2 { // idempotent, and before the first run ever
		if err := b.Pause(ctx, b.def, jobs.Trigger{}); err != nil || !paused() {
			t.Fatalf("pausing: %v, paused %v", err, paused())
		}
	}
	b.trigger(ctx, t, tasks.SyncFull)
	if n := len(b.pending(t)); n != 1 {
		t.Errorf("%d runs wait while paused, want 1", n)
	}
	for range 2 {
		if err := b.Resume(ctx, b.def, jobs.Trigger{}); err != nil || paused() {
			t.Fatalf("resuming: %v, paused %v", err, paused())
		}
	}
}

// end archives n runs, which is the cheapest way to have ended runs.
func (b *testBundle) end(ctx context.Context, t *testing.T, n int) []string {
	t.Helper()
	client := asynq.NewClientFromRedisClient(b.rdb)
	var ids []string
	now := time.Now()
	for i := range n {
		id := tasks.TickID(b.def.Name, now.Add(time.Duration(i)*time.Millisecond))
		if _, err := client.EnqueueContext(ctx, b.def.NewTask(id, []byte("{}"), nil)); err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.ArchiveTask(b.def.Name, id.String()); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id.String())
	}
	return ids
}

func TestTrimKeepsTheNewest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ ended, keep, want int }{
		{0, 20, 0}, {5, 20, 5}, {20, 20, 20}, {21, 20, 20}, {350, 20, 20}, {3, 0, 0},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.keep, test.ended), func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			ids := b.end(ctx, t, test.ended)
			b.def.KeepFailed = test.keep
			if err := b.Trim(ctx, b.def); err != nil {
				t.Fatal(err)
			}
			left, err := b.inspector.ListArchivedTasks(b.def.Name, asynq.PageSize(1000))
			if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
				t.Fatal(err)
			}
			if len(left) != test.want {
				t.Fatalf("%d are left, want %d", len(left), test.want)
			}
			kept := make(map[string]bool)
			for _, info := range left {
				kept[info.ID] = true
			}
			for _, id := range ids[test.ended-test.want:] {
				if !kept[id] {
					t.Errorf("%s, one of the newest, is gone", id)
				}
			}
		})
	}
}

func TestCleanupRemovesOldRuns(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.end(ctx, t, 230)
	if removed, err := b.Cleanup(ctx, b.def, time.Now().Add(-time.Hour), jobs.Trigger{}); err != nil || removed != (jobs.Removed{}) {
		t.Fatalf("with a grace period of an hour: %+v, %v", removed, err)
	}
	removed, err := b.Cleanup(ctx, b.def, time.Now().Add(2*time.Second), jobs.Trigger{})
	if err != nil || removed != (jobs.Removed{Failed: 230}) {
		t.Fatalf("without a grace period: %+v, %v", removed, err)
	}
	// Before the first run ever there is nothing to clean up, and no error.
	other, _ := b.Registry().Lookup("issue-sync")
	if removed, err := b.Cleanup(ctx, other, time.Now(), jobs.Trigger{}); err != nil || removed != (jobs.Removed{}) {
		t.Errorf("of a queue that was never used: %+v, %v", removed, err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.trigger(ctx, t, tasks.SyncFull)
	b.trigger(ctx, t, tasks.SyncIncremental)
	b.end(ctx, t, 3)
	status, err := b.Status(ctx, b.Registry().All()...)
	if err != nil {
		t.Fatal(err)
	}
	if want := (jobs.Counts{Waiting: 2, Failed: 3}); status.Counts != want {
		t.Errorf("counts %+v, want %+v", status.Counts, want)
	}
	if len(status.Active) != 0 || len(status.Repeatable) != 0 || status.Paused {
		t.Errorf("status %+v", status)
	}
}

func TestLiveProcesses(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	live := func() int {
		t.Helper()
		n, err := b.Live(ctx, jobs.RoleWorker)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	running, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	for i := range 3 {
		loops.Go(func() {
			b.HeartbeatLoop(running, jobs.RoleWorker, fmt.Sprint(i), func() jobs.About { return jobs.About{} })
		})
	}
	testbed.Eventually(t, "3 live workers", func() bool { return live() == 3 })
	// One that said its last word long ago is not counted.
	if err := b.rdb.ZAdd(ctx, "codex-jobs:workers", redis.Z{Score: float64(time.Now().Add(-time.Minute).UnixMilli()), Member: "dead"}).Err(); err != nil {
		t.Fatal(err)
	}
	if n := live(); n != 3 {
		t.Errorf("%d live workers with a dead one, want 3", n)
	}
	stop()
	loops.Wait()
	if n := live(); n != 0 {
		t.Errorf("%d live workers after all have left", n)
	}
}
