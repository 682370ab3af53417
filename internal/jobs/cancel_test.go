package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestCancelWaiting(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	if removed, err := b.Cancel(ctx, id, jobs.Trigger{}); err != nil || !removed {
		t.Fatalf("%v, %v", removed, err)
	}
	if _, err := b.Find(ctx, id); !errors.Is(err, jobs.ErrNoJob) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := b.Cancel(ctx, id, jobs.Trigger{}); !errors.Is(err, jobs.ErrNoJob) {
		t.Errorf("a second time: %v", err)
	}
	// Its unique key is free, and does not bring it back.
	next := b.trigger(ctx, t, tasks.SyncFull)
	if next.Coalesced || next.ID == id || len(b.pending(t)) != 1 {
		t.Errorf("the next trigger: %+v, %d wait", next, len(b.pending(t)))
	}
	for _, unknown := range []tasks.RunID{tasks.TickID("no-such-job", time.Now()), tasks.TickID("user-sync", time.Now())} {
		if _, err := b.Cancel(ctx, unknown, jobs.Trigger{}); !errors.Is(err, jobs.ErrNoJob) {
			t.Errorf("%s: %v", unknown, err)
		}
	}
}

// A rescued run waits with the state that its dead worker left. When it is cancelled, no range goes on and no key is left.
func TestCancelRescued(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	dead, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.AddRange(ctx, 0, []byte("{}"), true); err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Cancel(ctx, id, jobs.Trigger{}); err != nil || !removed {
		t.Errorf("%v, %v", removed, err)
	}
	if _, err := b.OpenRange(ctx, tasks.RangeID{Run: id}, jobs.NewOwner("host:1:abc")); !errors.Is(err, jobs.ErrNoRange) {
		t.Errorf("a range of a removed run can be opened: %v", err)
	}
	if keys, err := b.rdb.Keys(ctx, "codex-jobs:*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left: %v, %v", keys, err)
	}
}

// A run is cancelled while its worker is dead. Its ranges do not wait for another worker to notice.
func TestCancelWithADeadWorker(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	took, release := b.hold(t)
	<-took // asynq counts the task as active
	dead, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.AddRange(ctx, 0, []byte("{}"), true); err != nil {
		t.Fatal(err)
	}
	active, err := b.OpenRange(ctx, tasks.RangeID{Run: id}, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Cancel(ctx, id, jobs.Trigger{}); err != nil || removed {
		t.Errorf("%v, %v", removed, err)
	}
	if err := active.Save(ctx, []byte("x"), jobs.Progress{Percent: 1}); !errors.Is(err, jobs.ErrNoRange) {
		t.Errorf("a range of a cancelled run goes on: %v", err)
	}
	if _, err := b.OpenRange(ctx, tasks.RangeID{Run: id}, jobs.NewOwner("host:1:abc")); !errors.Is(err, jobs.ErrNoRange) {
		t.Errorf("a range of a cancelled run begins: %v", err)
	}
	release()
}

// A run has ended, and asynq has yet to record that. It cannot be cancelled, and the try leaves no key.
func TestCancelAtTheEnd(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	took, release := b.hold(t)
	<-took
	run, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Complete(ctx, nil); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, release)
	if removed, err := b.Cancel(ctx, id, jobs.Trigger{}); !errors.Is(err, jobs.ErrEnded) || removed {
		t.Errorf("%v, %v", removed, err)
	}
	if keys, err := b.rdb.Keys(ctx, "codex-jobs:*:run:*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left: %v, %v", keys, err)
	}
}

// hold takes the next task as asynq does, and completes it when it is released.
func (b *testBundle) hold(t *testing.T) (took <-chan struct{}, release func()) {
	t.Helper()
	taken, released := make(chan struct{}), make(chan struct{})
	server := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{
		Queues: map[string]int{b.def.Name: 1}, Concurrency: 1, TaskCheckInterval: 10 * time.Millisecond, LogLevel: asynq.FatalLevel,
	})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(taken)
		<-released
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(func() {
		release()
		server.Shutdown()
	})
	return taken, release
}

func TestListAndFind(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	if list, total, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: jobs.States(), Page: 1, PageSize: 20}); err != nil || len(list) != 0 || total != 0 {
		t.Fatalf("on an empty Redis: %+v, %d, %v", list, total, err)
	}
	const n = 23
	client := asynq.NewClientFromRedisClient(b.rdb)
	want := make(map[string]bool)
	for i := range n {
		def := b.Registry().All()[i%2]
		payload, err := def.EncodePayload(payload(tasks.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		id := tasks.TriggerID(def.Name, time.Now())
		if _, err := client.EnqueueContext(ctx, def.NewTask(id, payload, nil)); err != nil {
			t.Fatal(err)
		}
		want[id.String()] = true
	}
	for i := range 7 {
		list, err := b.inspector.ListPendingTasks("user-sync", asynq.PageSize(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.ArchiveTask("user-sync", list[0].ID); err != nil {
			t.Fatal(i, err)
		}
	}
	for _, size := range []int{1, 3, 5, 20, 100} {
		seen := make(map[string]int)
		var states []jobs.State
		for page := 1; ; page++ {
			list, total, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: jobs.States(), Page: page, PageSize: size})
			if err != nil || total != n {
				t.Fatalf("page %d of %d: %d in all, %v", page, size, total, err)
			}
			if len(list) == 0 {
				break
			}
			if len(list) > size {
				t.Fatalf("page %d has %d jobs", page, len(list))
			}
			for _, job := range list {
				seen[job.ID.String()]++
				states = append(states, job.State)
			}
		}
		for id := range want {
			if seen[id] != 1 {
				t.Errorf("with pages of %d %s is listed %d times", size, id, seen[id])
			}
		}
		if states[0] != jobs.StateWaiting || states[n-1] != jobs.StateFailed {
			t.Errorf("with pages of %d the states are %v", size, states)
		}
	}
	failed, total, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All()[:1], States: []jobs.State{jobs.StateFailed}, Page: 1, PageSize: 5})
	if err != nil || total != 7 || len(failed) != 5 || failed[0].State != jobs.StateFailed {
		t.Errorf("failed ones: %+v, %d, %v", failed, total, err)
	}
	if job, err := b.Find(ctx, failed[0].ID); err != nil || fmt.Sprint(job) != fmt.Sprint(failed[0]) || string(job.Data) != `{"syncType":"full"}` || job.Attempts != 3 {
		t.Errorf("found %+v, %v; listed %+v", job, err, failed[0])
	}
}

// Ended runs are listed newest first, over all job types and whatever their end was. Cancelled is a state of its own.
func TestOrderOfTheList(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	var waiting, ended []string
	for i := range 6 {
		def := b.Registry().All()[i%2]
		id := tasks.TriggerID(def.Name, time.Now())
		id.Reference = id.Reference.Add(time.Duration(i) * time.Millisecond)
		data, err := def.EncodePayload(payload(tasks.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(ctx, def.NewTask(id, data, nil)); err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.ArchiveTask(def.Name, id.String()); err != nil {
			t.Fatal(err)
		}
		ended = append([]string{id.String()}, ended...)
	}
	b.def, _ = b.Registry().Lookup("user-sync")
	for _, syncType := range []string{tasks.SyncFull, tasks.SyncIncremental} {
		waiting = append(waiting, b.trigger(ctx, t, syncType).ID.String())
	}
	list := func(page, size int, states ...jobs.State) (ids []string) {
		t.Helper()
		jobs, _, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: states, Page: page, PageSize: size})
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			ids = append(ids, job.ID.String())
		}
		return ids
	}
	all := slices.Concat(waiting, ended)
	if got := list(1, 20, jobs.States()...); !slices.Equal(got, all) {
		t.Errorf("listed %v, want %v", got, all)
	}
	var paged []string
	for page := 1; page <= 3; page++ {
		paged = append(paged, list(page, 3, jobs.States()...)...)
	}
	if !slices.Equal(paged, all) {
		t.Errorf("in pages of 3: %v, want %v", paged, all)
	}
	if got := list(2, 4, jobs.StateFailed); !slices.Equal(got, ended[4:]) {
		t.Errorf("the second page of the failed ones is %v, want %v", got, ended[4:])
	}
	if got := list(1, 20, jobs.StateCancelled); len(got) > 0 {
		t.Errorf("cancelled: %v, want none", got)
	}
}

// Each retry by hand has a number of its own, which the run and its ranges know, be it one of the API or of the dashboard. What ends
// a process in the middle of one skips a number.
func TestRetriesAreCounted(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	queue, _ := b.OurQueue(b.def.Queue())
	want := func(want int) *jobs.RunState {
		t.Helper()
		run, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		if err := run.AddRange(ctx, 0, []byte("{}"), true); err != nil {
			t.Fatal(err)
		}
		part, err := b.OpenRange(ctx, tasks.RangeID{Run: id}, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		if run.Retries != want || part.Retries != want || run.New != (want == 0) || run.Failures != 0 {
			t.Errorf("the run was retried %d times, says its range %d times, want %d: %+v", run.Retries, part.Retries, want, run.Opened)
		}
		return run
	}
	fail := func(run *jobs.RunState) {
		t.Helper()
		if err := errors.Join(run.Fail(ctx, errors.New("told to")), b.inspector.ArchiveTask(b.def.Name, id.String())); err != nil {
			t.Fatal(err)
		}
	}
	fail(want(0))
	for i, retry := range []func() error{
		func() error { return b.Retry(ctx, id, "admin") },
		func() error { return b.RunTask(ctx, queue, id.String(), jobs.Trigger{}) },
		func() error { return b.Retry(ctx, id, "") },
	} {
		if err := retry(); err != nil {
			t.Fatal(err)
		}
		fail(want(i + 1))
	}
	for range 2 {
		if restarted, err := b.Restart(ctx, id); err != nil || !restarted {
			t.Fatalf("%v, %v", restarted, err)
		}
	}
	if err := b.Retry(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	run := want(6)
	// Another client that has seen the run failed is too late, and removes nothing.
	if restarted, err := b.Restart(ctx, id); err != nil || restarted {
		t.Errorf("%v, %v", restarted, err)
	}
	if err := b.Retry(ctx, id, ""); !errors.Is(err, jobs.ErrNotFailed) {
		t.Errorf("%v", err)
	}
	if err := run.Save(ctx, []byte("x"), jobs.Progress{Percent: 1}); err != nil {
		t.Errorf("the attempt has lost its run: %v", err)
	}
	// The count outlives the run's state.
	if err := b.rdb.Del(ctx, "codex-jobs:{user-sync}:run:"+id.String(), "codex-jobs:{user-sync}:ranges:"+id.String()).Err(); err != nil {
		t.Fatal(err)
	}
	if run, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc")); err != nil || run.Retries != 6 {
		t.Errorf("%+v, %v", run, err)
	}
}

// Of several clients that retry a run at the same time one does.
func TestRetryTogether(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	if err := b.inspector.ArchiveTask(b.def.Name, id.String()); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int32
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			switch err := b.Retry(ctx, id, ""); {
			case err == nil:
				done.Add(1)
			case !errors.Is(err, jobs.ErrNotFailed):
				t.Errorf("%v", err)
			}
		})
	}
	clients.Wait()
	if n := done.Load(); n != 1 || len(b.pending(t)) != 1 {
		t.Errorf("%d clients have retried it, %d runs wait", n, len(b.pending(t)))
	}
}
