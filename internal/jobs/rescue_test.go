package jobs_test

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// beat sends a heartbeat of a worker that works on these tasks.
func (b *testBundle) beat(t *testing.T, tasks ...string) {
	t.Helper()
	must(t, b.Heartbeat(t.Context(), jobs.RoleWorker, "host:1:ALIVE1", jobs.About{Doing: tasks}))
}

// A run whose worker is lost says in how long it is put back: 75 s after the lease of its task was renewed last, whatever else waits. It
// promises nothing that may not be kept.
func TestRescueWithin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rest time.Duration // of the lease
		do   func(t *testing.T, b *testBundle, run *jobs.RunState)
		want time.Duration // 0 for none
	}{
		"the worker lives":      {rest: 25 * time.Second},
		"just lost":             {rest: 20 * time.Second, want: 65 * time.Second},
		"lost for a while":      {rest: -10 * time.Second, want: 35 * time.Second},
		"nobody has rescued it": {rest: -46 * time.Second},
		"another clock":         {rest: 5 * time.Second, do: func(t *testing.T, b *testBundle, run *jobs.RunState) { b.beat(t, run.ID().String()) }},
		"the job type is paused": {rest: 5 * time.Second, want: 50 * time.Second, do: func(t *testing.T, b *testBundle, _ *jobs.RunState) {
			must(t, b.Pause(t.Context(), b.def, jobs.Trigger{}))
		}},
		"no worker lives": {rest: 5 * time.Second, do: func(t *testing.T, b *testBundle, _ *jobs.RunState) {
			must(t, b.Leave(t.Context(), jobs.RoleWorker, "host:1:ALIVE1"))
			must(t, b.Heartbeat(t.Context(), jobs.RoleScheduler, "host:2:ALIVE2", jobs.About{}))
		}},
		"another run waits": {rest: 5 * time.Second, want: 50 * time.Second, do: func(t *testing.T, b *testBundle, _ *jobs.RunState) {
			b.trigger(t.Context(), t, tasks.SyncIncremental)
		}},
		"another run is active": {rest: 5 * time.Second, want: 50 * time.Second, do: func(t *testing.T, b *testBundle, _ *jobs.RunState) { b.startRun(t, tasks.SyncIncremental) }},
		"another one is lost, too": {rest: 5 * time.Second, want: 50 * time.Second, do: func(t *testing.T, b *testBundle, _ *jobs.RunState) {
			other := b.startRun(t, tasks.SyncIncremental)
			b.lease(t.Context(), t, other.ID().String(), time.Now())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			b.beat(t)
			run := b.startRun(t, tasks.SyncFull)
			b.lease(ctx, t, run.ID().String(), time.Now().Add(test.rest))
			if test.do != nil {
				test.do(t, b, run)
			}
			b.wantRescue(ctx, t, run.ID(), test.want)
		})
	}
}

// wantRescue checks within how long a run is rescued, to within two seconds: leases have whole seconds.
func (b *testBundle) wantRescue(ctx context.Context, t *testing.T, id tasks.RunID, want time.Duration) {
	t.Helper()
	found, err := b.Find(ctx, id)
	must(t, err)
	list, _, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: jobs.States(), Page: 1, PageSize: 10})
	must(t, err)
	for _, job := range append(list, found) {
		if job.ID == id && want > 0 && !job.WorkerLost {
			t.Error("its worker is not lost")
		}
		if got := job.RescueWithin; job.ID == id && (got > want || want > 0 && got < want-2*time.Second) {
			t.Errorf("rescued within %s, want %s", got, want)
		}
	}
}

// A split run is rescued when it loses the worker of a range, and when it loses its own worker.
func TestRescueOfARange(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.beat(t)
	run := b.startRun(t, tasks.SyncFull)
	must(t, run.AddRange(ctx, 0, []byte("spec"), false))
	must(t, run.AddRange(ctx, 1, []byte("spec"), true))
	lease := func(task string, rest time.Duration) {
		t.Helper()
		must(t, b.rdb.ZAdd(ctx, "asynq:{user-sync:ranges}:lease", redis.Z{Score: float64(time.Now().Add(rest).Unix()), Member: task}).Err())
	}
	lease(run.ID().String()+"/0", 29*time.Second)
	lease("1795495826751:user-sync:another1/0", time.Second)
	b.wantRescue(ctx, t, run.ID(), 0)
	lease(run.ID().String()+"/1", 3*time.Second)
	b.wantRescue(ctx, t, run.ID(), 48*time.Second)
	lease(run.ID().String()+"/0", 10*time.Second)
	b.wantRescue(ctx, t, run.ID(), 55*time.Second)
	b.lease(ctx, t, run.ID().String(), time.Now().Add(-time.Minute)) // the lease of the run itself is overdue
	b.wantRescue(ctx, t, run.ID(), 0)
	if job, err := b.Find(ctx, run.ID()); err != nil || !job.WorkerLost {
		t.Errorf("the worker of a run that nobody puts back is not lost: %v", err)
	}
	b.lease(ctx, t, run.ID().String(), time.Now())
	b.wantRescue(ctx, t, run.ID(), 55*time.Second)
	b.beat(t, run.ID().String(), run.ID().String()+"/0", run.ID().String()+"/1")
	b.wantRescue(ctx, t, run.ID(), 0)
	if job, err := b.Find(ctx, run.ID()); err != nil || job.WorkerLost {
		t.Errorf("a live worker is lost: %v", err)
	}
}

// A run says which workers were lost during it, and which went on: of itself and of its ranges, while it runs, after its end, and in the
// history. An attempt that was asked for twice, or that ended in order, is no rescue.
func TestRescuesAreRecorded(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	start := func(owner string) *jobs.RunState {
		t.Helper()
		run, err := b.StartRun(ctx, id, tasks.SyncFull, owner)
		must(t, err)
		return run
	}
	open := func(owner string) *jobs.RangeState {
		t.Helper()
		part, err := b.OpenRange(ctx, tasks.RangeID{Run: id, Index: 1}, owner)
		must(t, err)
		return part
	}
	before := time.Now().Truncate(time.Millisecond)
	first := start(jobs.NewOwner("host:1:FIRST1"))
	must(t, first.Release(ctx))
	start("KDBQT5TOTFZBTPEVFCBFPQRSTU") // of an older release
	owner := jobs.NewOwner("host:2:SECOND")
	start(owner)
	run := start(owner) // the answer was lost
	must(t, run.AddRange(ctx, 0, []byte("spec"), false))
	must(t, run.AddRange(ctx, 1, []byte("spec"), true))
	must(t, open(jobs.NewOwner("host:1:FIRST1")).FailAttempt(ctx))
	open(jobs.NewOwner(`odd"host:1:FIRST1`))
	owner = jobs.NewOwner("host:2:SECOND")
	open(owner)
	must(t, open(owner).Complete(ctx, []byte("{}")))

	check := func(where string, got []jobs.Rescue) {
		t.Helper()
		want := []jobs.Rescue{{Worker: "host:2:SECOND"}, {Range: new(1), Lost: `odd"host:1:FIRST1`, Worker: "host:2:SECOND"}}
		for i := range got {
			if got[i].At.Before(before) || got[i].At.After(time.Now()) {
				t.Errorf("%s it was rescued at %s", where, got[i].At)
			}
			got[i].At = time.Time{}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s the rescues are %+v, want %+v", where, got, want)
		}
	}
	found, err := b.Find(ctx, id)
	must(t, err)
	check("while it runs", found.Rescues)
	must(t, run.Complete(ctx, []byte("{}")))
	found, err = b.Find(ctx, id)
	must(t, err)
	check("afterwards", found.Rescues)
	list := b.entries(ctx, t)
	if len(list) != 1 {
		t.Fatalf("the entries are %+v", list)
	}
	check("in the history", list[0].Rescues)
	encoded, err := json.Marshal(list[0])
	must(t, err)
	var again jobs.Entry
	must(t, json.Unmarshal(encoded, &again))
	if !reflect.DeepEqual(again, list[0]) {
		t.Errorf("the entry is %+v as JSON and back, was %+v", again, list[0])
	}
}

// Of very many rescues the last ones stay.
func TestRescuesAreBounded(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	run, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
	must(t, err)
	const ranges = 300
	for i := range ranges {
		must(t, run.AddRange(ctx, i, []byte("spec"), i == ranges-1))
		for range 2 {
			_, err := b.OpenRange(ctx, tasks.RangeID{Run: id, Index: i}, jobs.NewOwner("host:1:abc"))
			must(t, err)
		}
	}
	found, err := b.Find(ctx, id)
	must(t, err)
	if n := len(found.Rescues); n < 50 || n >= ranges || *found.Rescues[n-1].Range != ranges-1 {
		t.Errorf("%d rescues are kept", n)
	}
}
