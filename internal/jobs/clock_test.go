package jobs_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestWatchClock(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	log, logger := testbed.NewLog(t)
	j := jobs.New(b.rdb, b.Registry(), logger)
	var ahead atomic.Int64
	registry := prometheus.NewRegistry()
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		j.WatchClockEvery(ctx, registry, 5*time.Millisecond, func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) })
	}()
	defer func() {
		stop()
		<-ended
	}()
	offset := func() float64 { return telemetrytest.Gather(t, registry)["codex_jobs_clock_offset_seconds"] }
	differs := procs.Match{Text: "clock differs from Redis' clock", Attrs: procs.Attrs{"level": "WARN"}}
	agrees := procs.Match{Text: "agrees with Redis' clock again", Attrs: procs.Attrs{"level": "INFO"}}
	for i, off := range []time.Duration{time.Hour, -time.Minute} {
		ahead.Store(int64(off))
		testbed.Await(t, log, i+1, differs)
		testbed.Eventually(t, "the metric", func() bool { return (offset()-off.Seconds())*(offset()-off.Seconds()) < 4 })
		ahead.Store(0)
		testbed.Await(t, log, i+1, agrees)
	}
	if n := len(log.Find(differs)); n != 2 {
		t.Errorf("%d warnings, want one for each time that the clock began to differ", n)
	}
}

// A process whose clock was ahead must not look live for as long after its end.
func TestProcessOfABrokenClock(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	dead := redis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: "dead"}
	if err := b.rdb.ZAdd(ctx, "codex-jobs:schedulers", dead).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Live(ctx, jobs.RoleScheduler); n != 0 || err != nil {
		t.Errorf("%d live schedulers, %v; want none", n, err)
	}
	if err := b.Heartbeat(ctx, jobs.RoleScheduler, "live", jobs.About{}); err != nil {
		t.Fatal(err)
	}
	if list, err := b.Processes(ctx); len(list) != 1 || err != nil {
		t.Errorf("live processes: %+v, %v; want one", list, err)
	}
	if n := b.rdb.ZCard(ctx, "codex-jobs:schedulers").Val(); n != 1 {
		t.Errorf("%d entries are left, want one", n)
	}
}

// After a clock was set back, its ticks have the IDs of runs that have ended.
func TestTickThatComesAgain(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	tickTime := b.def.Schedule.Prev(time.Now())
	b.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
	if _, err := b.StartRun(ctx, tasks.TickID(b.def.Name, tickTime), tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if err := b.inspector.ArchiveTask(b.def.Name, tasks.TickID(b.def.Name, tickTime).String()); err != nil {
		t.Fatal(err)
	}
	b.wantTick(t, tickTime, jobs.Tick{})
	if replaced, err := b.DistrustTick(ctx, b.def, tickTime, tickTime.Add(-time.Hour)); replaced || err != nil {
		t.Errorf("a tick that is not too late was replaced: %v, %v", replaced, err)
	}
	if replaced, err := b.DistrustTick(ctx, b.def, tickTime.Add(-1), tickTime.Add(-time.Hour)); !replaced || err != nil {
		t.Errorf("the tick was not replaced: %v, %v", replaced, err)
	}
	b.wantTick(t, tickTime, jobs.Tick{Enqueued: true})
	if n := len(b.pending(t)); n != 1 {
		t.Errorf("%d runs wait, want 1", n)
	}
}

// The run of a tick that a broken clock has enqueued must not silence the ticks before it.
func TestRunOfATickOfABrokenClock(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	tickTime := b.def.Schedule.Prev(time.Now())
	if err := b.FirstTick(ctx, b.def, tickTime); err != nil {
		t.Fatal(err)
	}
	ahead := tasks.TickID(b.def.Name, tickTime.Add(2*time.Hour))
	if _, err := b.StartRun(ctx, ahead, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if last, err := b.LastTick(ctx, b.def); err != nil || !last.Equal(tickTime) {
		t.Errorf("last tick %v, %v; want %v", last, err, tickTime)
	}
}

// The alert for missed ticks compares the last tick with the one that is due.
func TestCollectTickOfABrokenClock(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	if err := b.FirstTick(ctx, b.def, b.def.Schedule.Prev(time.Now().Add(2*time.Hour))); err != nil {
		t.Fatal(err)
	}
	if metrics := collect(t, b.Jobs); metrics[lastTick] != 0 || metrics[dueTick] <= 0 {
		t.Errorf("the last tick is %v, the due one %v; want 0 and a time", metrics[lastTick], metrics[dueTick])
	}
}
