package scheduler_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/scheduler"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

var (
	informed = procs.Match{Attrs: procs.Attrs{"level": "INFO"}}
	warned   = procs.Match{Attrs: procs.Attrs{"level": "WARN"}}
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBundle is a Redis and the job types, for a test that starts schedulers.
type testBundle struct {
	*jobs.Jobs
	options   redisconn.Options
	rdb       *redis.Client
	inspector *asynq.Inspector
	// metrics and spans are one for each scheduler. A scheduler makes a span each time that it tries to enqueue a tick.
	metrics []*prometheus.Registry
	spans   []*tracetest.InMemoryExporter
	log     *testbed.Log
	logger  *slog.Logger
	user    tasks.Definition
	hooks   []redis.Hook // of the clients of schedulers
}

// setup gives the job types the schedules. The other job types have none.
func setup(t *testing.T, schedules map[string]tasks.Schedule) *testBundle {
	t.Helper()
	registry := codex.Registry().Resolve(func(d *tasks.Definition) { d.Schedule = schedules[d.Name] })
	for _, def := range registry.All() {
		if err := def.Schedule.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	o := redistest.Options(t)
	b := &testBundle{options: o, rdb: redistest.Client(t, o)}
	b.log, b.logger = testbed.NewLog(t)
	b.Jobs = jobs.New(b.rdb, registry, b.logger)
	b.inspector = asynq.NewInspectorFromRedisClient(b.rdb)
	b.user, _ = registry.Lookup("user-sync")
	return b
}

func userSyncEvery(d time.Duration) map[string]tasks.Schedule {
	return map[string]tasks.Schedule{"user-sync": {Every: d}}
}

// start runs a scheduler with a connection of its own to the address, as each process has. The function that it returns stops
// the scheduler and waits for its end.
func (b *testBundle) start(t *testing.T, addr string) (stop func()) {
	t.Helper()
	return b.startWithClock(t, addr, nil)
}

func (b *testBundle) startWithClock(t *testing.T, addr string, now func() time.Time) (stop func()) {
	t.Helper()
	o := b.options
	o.Addr = addr
	rdb := redisconn.New(o, redisconn.Retrying, b.logger, b.hooks...)
	t.Cleanup(func() { _ = rdb.Close() })
	registry, spans := prometheus.NewRegistry(), tracetest.NewInMemoryExporter()
	b.metrics, b.spans = append(b.metrics, registry), append(b.spans, spans)
	s := scheduler.New(jobs.New(rdb, b.Registry(), b.logger), redisconn.ConnOpt{Options: o, Limits: redisconn.Retrying, Log: b.logger}, scheduler.Options{
		Metrics: registry, Tracing: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)),
	}, b.logger)
	if now != nil {
		s.SetClock(now)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// attempts returns how many schedulers tried to enqueue each tick, and how many of the tries failed.
func (b *testBundle) attempts() (schedulers map[string]int, failed int) {
	schedulers = make(map[string]int)
	for _, exporter := range b.spans {
		ids := make(map[string]bool)
		for _, span := range exporter.GetSpans() {
			for _, attribute := range span.Attributes {
				if attribute.Key == telemetry.AttributeJobID {
					ids[attribute.Value.AsString()] = true
				}
			}
			if span.Status.Code == codes.Error {
				failed++
			}
		}
		for id := range ids {
			schedulers[id]++
		}
	}
	return schedulers, failed
}

// counted returns how many ticks all schedulers together have counted with one of the outcomes.
func (b *testBundle) counted(t *testing.T, outcomes ...string) int {
	t.Helper()
	counted := telemetrytest.Counted(t, "user-sync", b.metrics...)
	n := 0.0
	for _, outcome := range outcomes {
		n += counted[`ticks_total{outcome="`+outcome+`"}`]
	}
	return int(n)
}

// distrusted returns how often all schedulers together have replaced a last tick.
func (b *testBundle) distrusted(t *testing.T) int {
	t.Helper()
	return int(telemetrytest.Counted(t, "user-sync", b.metrics...)["ticks_distrusted_total"])
}

// handled returns the latest tick that was handled.
func (b *testBundle) handled(t *testing.T) time.Time {
	t.Helper()
	last, err := b.LastTick(t.Context(), b.user)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func (b *testBundle) pending(t *testing.T) []*asynq.TaskInfo {
	t.Helper()
	list, err := b.inspector.ListPendingTasks(b.user.Name, asynq.PageSize(1000))
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		t.Fatal(err)
	}
	return list
}

// deletable is how long after its tick a task must stay: another scheduler that found the tick not handled may be about to
// enqueue it, and would do so once more.
const deletable = 250 * time.Millisecond

// drain removes the waiting tasks from the queue, as a worker that is done at once, and adds them to seen.
func (b *testBundle) drain(t *testing.T, seen map[string]int) {
	t.Helper()
	for _, info := range b.pending(t) {
		id, err := tasks.ParseRunID(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !id.Scheduled() {
			t.Errorf("%s has not the ID of a tick", id)
		}
		if time.Since(id.Reference) < deletable {
			continue
		}
		if _, err := b.StartRun(t.Context(), id, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.DeleteTask(b.user.Name, info.ID); err != nil {
			t.Fatal(err)
		}
		seen[info.ID]++
	}
}

func TestEachTickEnqueuesOnce(t *testing.T) {
	t.Parallel()
	const (
		interval   = 2 * time.Second
		schedulers = 3
		ticks      = 4
	)
	b := setup(t, userSyncEvery(interval))
	seen := make(map[string]int)
	var stops []func()
	for range schedulers {
		stops = append(stops, b.start(t, b.options.Addr))
	}
	// The schedulers contend for ticks: more than one attempts them.
	contended := func() (n int) {
		attempts, _ := b.attempts()
		for id := range seen {
			if attempts[id] > 1 {
				n++
			}
		}
		return n
	}
	testbed.Eventually(t, "enough ticks for which schedulers contend", func() bool {
		b.drain(t, seen)
		return contended() >= ticks
	})
	for _, stop := range stops {
		stop()
	}
	testbed.Eventually(t, "nothing to wait any more", func() bool {
		b.drain(t, seen)
		return len(b.pending(t)) == 0
	})

	var times []time.Time
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if seen[id] != 1 {
			t.Errorf("%s was enqueued %d times", id, seen[id])
		}
		run, _ := tasks.ParseRunID(id)
		if !run.Reference.Equal(run.Reference.Truncate(interval)) {
			t.Errorf("the tick at %s is not a multiple of %s", run.Reference, interval)
		}
		times = append(times, run.Reference)
	}
	for i := range len(times) - 1 {
		if times[i+1].Sub(times[i]) != interval {
			t.Errorf("the tick at %s was followed by the one at %s", times[i], times[i+1])
		}
	}
	if n := b.counted(t, "enqueued", "caught_up"); n != len(seen) || b.counted(t, "coalesced") != 0 {
		t.Errorf("counted %v, want %d ticks", telemetrytest.Counted(t, "user-sync", b.metrics...), len(seen))
	}
	if n := len(b.log.Find(procs.Match{Msg: "Tick enqueued"})) + len(b.log.Find(procs.Match{Msg: "Overdue tick enqueued"})); n != len(seen) {
		t.Errorf("%d ticks were logged as enqueued, want %d", n, len(seen))
	}
}

// A tick is enqueued within 50 ms of its time. On a busy machine a tick is late, and so is a timer of the test that asks Redis
// equally often: the test allows the tick the lateness of its timer.
func TestTicksAreOnTime(t *testing.T) {
	t.Parallel()
	const (
		interval = time.Second
		ticks    = 7
		limit    = 50 * time.Millisecond
	)
	b := setup(t, userSyncEvery(interval))
	stop := b.start(t, b.options.Addr)
	lateness := make(map[string]time.Duration)
	var control []time.Duration // of the test's own timer
	seen := make(map[string]int)
	for deadline := time.Now().Add(testbed.WaitLimit); len(lateness) < ticks; {
		if time.Now().After(deadline) {
			t.Fatalf("only %d ticks came in time", len(lateness))
		}
		tickTime := b.user.Schedule.Next(time.Now())
		<-time.After(time.Until(tickTime))
		for range 4 {
			if err := b.rdb.Ping(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		control = append(control, time.Since(tickTime))
		id := tasks.TickID(b.user.Name, tickTime).String()
		testbed.Eventually(t, "the tick", func() bool { return !b.handled(t).Before(tickTime) })
		testbed.Eventually(t, "nothing to wait any more", func() bool {
			for _, info := range b.pending(t) {
				// When asynq's client began to put it into the queue.
				ns, err := b.rdb.HGet(t.Context(), "asynq:{user-sync}:t:"+id, "pending_since").Int64()
				if err == nil && info.ID == id {
					lateness[id] = time.Unix(0, ns).Sub(tickTime)
				}
			}
			b.drain(t, seen)
			return len(b.pending(t)) == 0
		})
	}
	stop()
	all := slices.Sorted(maps.Values(lateness))
	slices.Sort(control)
	t.Logf("ticks were enqueued %v after their time, the test's own timer took %v", all, control)
	if median := all[ticks/2]; all[0] < 0 || median > limit+control[len(control)-1] {
		t.Errorf("ticks were enqueued %v after their time, at most %s are allowed", all, limit)
	}
}

// steppingClock is a clock that can be set. It shows another time than the machine's clock, and runs as fast.
type steppingClock struct {
	mu    sync.Mutex
	ahead time.Duration
	looks int
}

func (c *steppingClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks++
	return time.Now().Round(0).Add(c.ahead)
}

func (c *steppingClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// waitForLooks returns when a timer has handled the present time. A timer looks at the clock up to three times when it wakes.
func (c *steppingClock) waitForLooks(t *testing.T) {
	t.Helper()
	looks := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.looks
	}
	before := looks()
	testbed.Eventually(t, "looks at the clock", func() bool { return looks() >= before+6 })
}

// Go's timers notice neither a clock that was set nor a machine that slept.
func TestClockThatSteps(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	b := setup(t, userSyncEvery(day))
	midnight := b.user.Schedule.Prev(time.Now())
	clock := &steppingClock{ahead: time.Until(midnight.Add(12 * time.Hour))} // it is noon: no midnight comes in between
	b.startWithClock(t, b.options.Addr, clock.now)
	seen := make(map[string]int)
	want := func(what string, days ...int) {
		t.Helper()
		clock.waitForLooks(t)
		for _, info := range b.pending(t) {
			id, err := tasks.ParseRunID(info.ID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.StartRun(t.Context(), id, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
				t.Fatal(err)
			}
			if err := b.inspector.DeleteTask(b.user.Name, info.ID); err != nil {
				t.Fatal(err)
			}
			seen[info.ID]++
		}
		all := make(map[string]int)
		for _, n := range days {
			all[tasks.TickID(b.user.Name, midnight.Add(time.Duration(n)*day)).String()] = 1
		}
		if !maps.Equal(seen, all) {
			t.Errorf("%s: enqueued so far %v, want %v", what, seen, all)
		}
	}
	testbed.Eventually(t, "the scheduler has looked which tick was the last", func() bool { return b.handled(t).Equal(midnight) })
	want("at first")
	clock.step(day)
	testbed.Eventually(t, "the tick of the next day", func() bool { return b.handled(t).Equal(midnight.Add(day)) })
	want("after a step of a day", 1)
	clock.step(-day)
	want("after a step back", 1)
	clock.step(day)
	want("after the step once more", 1)
	clock.step(3 * day)
	testbed.Eventually(t, "the latest of three ticks", func() bool { return b.handled(t).Equal(midnight.Add(4 * day)) })
	want("after a step of three days", 1, 4)
}

// A clock that was an hour ahead has left a last tick that silences all ticks for an hour.
func TestTickOfABrokenClock(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"before the scheduler starts": false, "while it runs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, userSyncEvery(time.Second))
			ahead := b.user.Schedule.Prev(time.Now().Add(time.Hour))
			if running {
				b.start(t, b.options.Addr)
				testbed.Eventually(t, "ticks", func() bool { return b.counted(t, "enqueued", "caught_up", "coalesced") >= 1 })
			}
			if err := b.rdb.Set(t.Context(), "codex-jobs:{user-sync}:tick", ahead.UnixMilli(), 0).Err(); err != nil {
				t.Fatal(err)
			}
			if !running {
				b.start(t, b.options.Addr)
			}
			before := b.counted(t, "enqueued", "caught_up", "coalesced")
			testbed.Eventually(t, "ticks", func() bool { return b.counted(t, "enqueued", "caught_up", "coalesced") >= before+2 })
			ignored := procs.Match{Text: "a clock was wrong", Attrs: procs.Attrs{"level": "WARN", "job": "user-sync", "last": ahead.Format(tasks.TimestampLayout)}}
			if n := len(b.log.Find(ignored)); n != 1 {
				t.Errorf("it was logged %d times", n)
			}
			if n := b.distrusted(t); n != 1 {
				t.Errorf("it was counted %d times", n)
			}
			if last := b.handled(t); last.After(time.Now()) {
				t.Errorf("the last tick is still %s", last)
			}
		})
	}
}

// beforeCommand calls a function before each command. It is a redis.Hook.
type beforeCommand func(ctx context.Context, args []any)

func (beforeCommand) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f beforeCommand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f(ctx, cmd.Args())
		return next(ctx, cmd)
	}
}

func (beforeCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The tick of a clock that is an hour ahead comes after a scheduler has looked at the last tick, and before it enqueues its own.
func TestTickOfABrokenClockMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(2*time.Second))
	const key = "codex-jobs:{user-sync}:tick"
	var overtaken atomic.Value // the ID of the tick
	b.hooks = append(b.hooks, beforeCommand(func(ctx context.Context, args []any) {
		if len(args) < 8 || args[0] != "evalsha" || args[2] != 4 || args[4] != key {
			return
		}
		if overtaken.CompareAndSwap(nil, args[7]) {
			ahead := b.user.Schedule.Prev(time.Now().Add(time.Hour))
			if err := b.rdb.Set(ctx, key, ahead.UnixMilli(), 0).Err(); err != nil {
				t.Error(err)
			}
		}
	}))
	b.start(t, b.options.Addr)
	testbed.Eventually(t, "the run of the tick", func() bool {
		return slices.ContainsFunc(b.pending(t), func(info *asynq.TaskInfo) bool { return info.ID == overtaken.Load() })
	})
}

// The clocks of a scheduler, and of Redis or not, are set back by ten minutes.
func TestClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"with Redis' clock": 10 * time.Minute, "alone": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, userSyncEvery(time.Second))
			clock := &steppingClock{ahead: ahead}
			b.startWithClock(t, b.options.Addr, clock.now)
			ticks := func() int { return b.counted(t, "enqueued", "caught_up", "coalesced") }
			testbed.Eventually(t, "ticks", func() bool { return ticks() >= 2 })
			clock.step(-10 * time.Minute)
			before := ticks()
			testbed.Eventually(t, "ticks by the clock that was set", func() bool { return ticks() >= before+2 })
			if n := b.distrusted(t); n != 1 {
				t.Errorf("the last tick was replaced %d times", n)
			}
		})
	}
}

// Two schedulers whose clocks differ by an hour must not replace each other's ticks in turn.
func TestSchedulersWhoseClocksDiffer(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, userSyncEvery(time.Second))
			b.start(t, b.options.Addr)
			b.startWithClock(t, b.options.Addr, (&steppingClock{ahead: off}).now)
			right := make(map[string]bool)
			wrong := make(map[string]bool)
			testbed.Eventually(t, "ticks of the right clock", func() bool {
				for _, info := range b.pending(t) {
					id, err := tasks.ParseRunID(info.ID)
					if err != nil {
						t.Fatal(err)
					}
					if time.Since(id.Reference).Abs() > time.Minute {
						wrong[info.ID] = true
					} else {
						right[info.ID] = true
					}
					if _, err := b.StartRun(t.Context(), id, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
						t.Fatal(err)
					}
					if err := b.inspector.DeleteTask(b.user.Name, info.ID); err != nil {
						t.Fatal(err)
					}
				}
				return len(right) >= 8
			})
			if len(wrong) > 1 || b.distrusted(t) > 1 {
				t.Errorf("%d runs of the wrong clock, the last tick was replaced %d times; want 1 at most", len(wrong), b.distrusted(t))
			}
		})
	}
}

func TestTickServedByWaitingRun(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	waiting, err := b.Trigger(t.Context(), b.user, &tasks.SyncPayload{SyncType: tasks.SyncIncremental})
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Trigger(t.Context(), b.user, &tasks.SyncPayload{SyncType: tasks.SyncFull})
	if err != nil {
		t.Fatal(err)
	}
	b.start(t, b.options.Addr)
	testbed.Eventually(t, "two ticks are served", func() bool { return b.counted(t, "coalesced", "caught_up") >= 2 })
	var ids []string
	for _, info := range b.pending(t) {
		ids = append(ids, info.ID)
	}
	slices.Sort(ids)
	if want := slices.Sorted(slices.Values([]string{waiting.ID.String(), other.ID.String()})); !slices.Equal(ids, want) {
		t.Errorf("waiting: %v, want %v", ids, want)
	}
	served := procs.Match{Text: "ick served by a run that still waits", Attrs: procs.Attrs{"level": "INFO", "job": "user-sync", "jobId": waiting.ID.String()}}
	if len(b.log.Find(served)) == 0 {
		t.Error("the log does not name the waiting run")
	}

	// Once it has begun the next tick has a run of its own.
	if _, err := b.StartRun(t.Context(), waiting.ID, tasks.SyncIncremental, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if err := b.inspector.DeleteTask(b.user.Name, waiting.ID.String()); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, "a tick is enqueued", func() bool {
		return slices.ContainsFunc(b.pending(t), func(info *asynq.TaskInfo) bool {
			id, err := tasks.ParseRunID(info.ID)
			return err == nil && id.Scheduled()
		})
	})
}

// Several schedulers find at the same time that a waiting run serves the tick. It still counts as one tick.
func TestServedTicksCountOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	if _, err := b.Trigger(t.Context(), b.user, &tasks.SyncPayload{SyncType: tasks.SyncIncremental}); err != nil {
		t.Fatal(err)
	}
	first := b.user.Schedule.Prev(time.Now())
	if err := b.FirstTick(t.Context(), b.user, first); err != nil {
		t.Fatal(err)
	}
	var stops []func()
	for range 5 {
		stops = append(stops, b.start(t, b.options.Addr))
	}
	testbed.Eventually(t, "some ticks", func() bool { return b.handled(t).Sub(first) >= 5*time.Second })
	for _, stop := range stops {
		stop()
	}
	// One for each second, unless all of five schedulers have slept through one on a busy machine.
	attempts, _ := b.attempts()
	if n := b.counted(t, "coalesced", "caught_up"); n != len(attempts) || b.counted(t, "enqueued") != 0 {
		t.Errorf("counted %v, want %d ticks", telemetrytest.Counted(t, "user-sync", b.metrics...), len(attempts))
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(attempts)), func(n int) bool { return n > 1 }) {
		t.Error("the schedulers did not contend: the test has shown nothing")
	}
}

// A rate misses the first event of a counter that appears with it. So all counters exist from the start.
func TestCountersBeginAtZero(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.start(t, b.options.Addr)
	metrics := telemetrytest.Gather(t, b.metrics[0])
	for _, name := range b.Registry().Names() {
		for _, outcome := range []string{"enqueued", "coalesced", "caught_up"} {
			series := `codex_jobs_ticks_total{job_type="` + name + `",outcome="` + outcome + `"}`
			if value, ok := metrics[series]; !ok || value != 0 {
				t.Errorf("%s is %v, there at all: %v", series, value, ok)
			}
		}
	}
}

func TestSchedulesAndSchedulersAreVisible(t *testing.T) {
	t.Parallel()
	const interval = 30 * time.Second // below a minute
	schedules := map[string]tasks.Schedule{
		"user-sync":    {Every: 20 * time.Minute},
		"project-sync": {Cron: "30 4 * * 1-5"},
		"issue-sync":   {Every: interval},
	}
	specs := map[string]string{"user-sync": "*/20 * * * *", "project-sync": "30 4 * * 1-5", "issue-sync": "@every 30s"}
	b := setup(t, schedules)
	stops := []func(){b.start(t, b.options.Addr), b.start(t, b.options.Addr)}

	live := func() int {
		n, err := b.Live(t.Context(), jobs.RoleScheduler)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	entries := func() []*asynq.SchedulerEntry {
		list, err := b.inspector.SchedulerEntries()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	begun := time.Now()
	testbed.Eventually(t, "both schedulers are visible", func() bool { return live() == 2 && len(entries()) == 2*len(specs) })
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("it took %s until the schedules were visible", took)
	}
	for _, entry := range entries() {
		name := entry.Task.Type()
		if entry.Spec != specs[name] {
			t.Errorf("%s has the spec %q, want %q", name, entry.Spec, specs[name])
		}
		if len(entry.Opts) != 1 || entry.Opts[0].Type() != asynq.QueueOpt || entry.Opts[0].Value() != name {
			t.Errorf("%s is shown with the options %v, want its queue", name, entry.Opts)
		}
		if schedules[name].Every == interval {
			continue // asynq's own rhythm begins with its start
		}
		// The next tick is the first one after now, or was that when the entry was shown.
		next := entry.Next.UTC()
		if prev := schedules[name].Prev(next); !prev.Equal(next) {
			t.Errorf("the next tick of %s is at %s, where it has none", name, next)
		}
		if before := schedules[name].Prev(next.Add(-time.Second)); before.After(time.Now()) {
			t.Errorf("the next tick of %s is at %s, but there is one at %s", name, next, before)
		}
	}
	// The API sees each schedule once, however many schedulers there are, and its next tick exactly.
	now := time.Now()
	seen, err := b.Schedules(t.Context(), now)
	if err != nil || len(seen) != len(specs) {
		t.Errorf("schedules: %+v, %v; want %d", seen, err, len(specs))
	}
	for _, s := range seen {
		if want := schedules[s.Job].Next(now); s.Spec != specs[s.Job] || !s.Next.Equal(want) || s.Every != schedules[s.Job].Every {
			t.Errorf("%+v, want the next tick at %s", s, want)
		}
	}

	stops[0]()
	testbed.Eventually(t, "one scheduler is left", func() bool { return live() == 1 && len(entries()) == len(specs) })
	stops[1]()
	if n := live(); n != 0 {
		t.Errorf("%d schedulers live after all were stopped", n)
	}
	for _, pattern := range []string{"asynq:scheduler*", "codex-jobs:scheduler*"} {
		if keys, err := b.rdb.Keys(t.Context(), pattern).Result(); err != nil || len(keys) > 0 {
			t.Errorf("keys left by schedulers that were stopped: %v, %v", keys, err)
		}
	}
}

// asynq's Scheduler enqueues nothing at the times of its entries, and logs nothing.
func TestAsynqNeverEnqueues(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	refused := make(chan error)
	shown := asynq.NewScheduler(redisconn.ConnOpt{Options: b.options, Limits: redisconn.Retrying, Log: b.logger}, &asynq.SchedulerOpts{
		HeartbeatInterval: 100 * time.Millisecond,
		Logger:            telemetry.NewAsynqLogger(b.logger),
		PostEnqueueFunc:   func(_ *asynq.TaskInfo, err error) { refused <- err },
	})
	if err := scheduler.Show(shown, b.user); err != nil {
		t.Fatal(err)
	}
	if err := shown.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-refused:
			if err == nil || !strings.Contains(err.Error(), "task ID cannot be empty") {
				t.Errorf("asynq said %v of an empty ID", err)
			}
		case <-time.After(testbed.WaitLimit):
			t.Fatal("asynq's Scheduler did not come to the time of its entry")
		}
	}
	testbed.Eventually(t, "asynq shows when the entry was there last", func() bool {
		list, err := b.inspector.SchedulerEntries()
		return err == nil && len(list) == 1 && !list[0].Prev.IsZero()
	})
	go func() {
		for range refused { // what comes during the shutdown
		}
	}()
	shown.Shutdown()
	close(refused)
	if keys, err := b.rdb.Keys(t.Context(), "*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("Redis has %v, %v; want nothing", keys, err)
	}
	if n := len(b.log.Find(warned)) + len(b.log.Find(procs.Match{Attrs: procs.Attrs{"level": "ERROR"}})); n > 0 {
		t.Errorf("%d warnings were logged", n)
	}
}

func TestNothingIsLeftAfterTicks(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	stop := b.start(t, b.options.Addr)
	seen := make(map[string]int)
	testbed.Eventually(t, "ticks", func() bool {
		b.drain(t, seen)
		return len(seen) >= 2
	})
	stop()
	if left, err := b.rdb.Keys(t.Context(), "asynq:scheduler*").Result(); err != nil || len(left) > 0 {
		t.Errorf("keys left by a scheduler that was stopped: %v, %v", left, err)
	}
}

// A killed scheduler of the previous release leaves its history. The next scheduler that starts removes it.
func TestHistoryOfADeadScheduler(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Minute))
	b.start(t, b.options.Addr)
	var live []*asynq.SchedulerEntry
	testbed.Eventually(t, "a live entry", func() bool {
		var err error
		live, err = b.inspector.SchedulerEntries()
		return err == nil && len(live) == 1
	})
	kept, dead := "asynq:scheduler_history:"+live[0].ID, "asynq:scheduler_history:dead"
	for _, key := range []string{kept, dead} {
		if err := b.rdb.ZAdd(t.Context(), key, redis.Z{Member: "x"}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t, b.options.Addr)
	testbed.Eventually(t, "the dead one's history is gone", func() bool { return b.rdb.Exists(t.Context(), dead).Val() == 0 })
	if b.rdb.Exists(t.Context(), kept).Val() != 1 {
		t.Error("a live scheduler's history is gone, too")
	}
}

func TestTicksWithoutRedis(t *testing.T) {
	t.Parallel()
	const interval = 2 * time.Second
	b := setup(t, userSyncEvery(interval))
	proxy := testbed.NewProxy(t, b.options.Addr)
	b.start(t, proxy.Addr)
	seen := make(map[string]int)
	enqueued := func(n int) func() bool {
		return func() bool {
			b.drain(t, seen)
			return len(seen) >= n
		}
	}
	testbed.Eventually(t, "a tick", enqueued(1))
	proxy.Down()
	testbed.Eventually(t, "a tick is missed", func() bool {
		_, failed := b.attempts()
		return failed > 1
	})
	missed := procs.Match{Text: "Tick not enqueued yet", Attrs: procs.Attrs{"level": "WARN", "job": "user-sync"}}
	if len(b.log.Find(procs.Match{Text: "Redis unreachable", Attrs: warned.Attrs})) == 0 || len(b.log.Find(missed)) == 0 {
		t.Error("the loss of Redis, and of a tick, were not logged")
	}
	testbed.Eventually(t, "nothing to wait any more", func() bool {
		b.drain(t, seen)
		return len(b.pending(t)) == 0
	})
	before := len(seen)
	proxy.Up()
	testbed.Eventually(t, "a tick after Redis is back", enqueued(before+1))
	testbed.Await(t, b.log, 1, procs.Match{Text: "Redis reachable again", Attrs: informed.Attrs})
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was enqueued %d times", id, n)
		}
	}
}

// A scheduler that comes back after several ticks enqueues the latest of them, soon and once.
func TestOverdueTick(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(24*time.Hour))
	today := b.user.Schedule.Prev(time.Now())
	if time.Until(today.Add(24*time.Hour)) < time.Minute {
		t.Log("the day ends within a minute: its tick may come on top")
	}
	if err := b.FirstTick(t.Context(), b.user, today.Add(-72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	clocks := []*steppingClock{new(steppingClock), new(steppingClock)}
	for _, clock := range clocks {
		b.startWithClock(t, b.options.Addr, clock.now)
	}
	testbed.Eventually(t, "the overdue tick is handled", func() bool { return b.handled(t).Equal(today) })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, clock := range clocks {
		clock.waitForLooks(t)
	}
	if waiting := b.pending(t); len(waiting) != 1 || waiting[0].ID != tasks.TickID("user-sync", today).String() {
		t.Errorf("waiting: %+v, want the tick of %s alone", waiting, today)
	}
	if got := telemetrytest.Counted(t, "user-sync", b.metrics...); !maps.Equal(got, map[string]float64{`ticks_total{outcome="caught_up"}`: 1}) {
		t.Errorf("counted %v, want one that was caught up", got)
	}
	if n := len(b.log.Find(procs.Match{Msg: "Overdue tick enqueued", Attrs: informed.Attrs})); n != 1 {
		t.Errorf("%d overdue ticks were logged", n)
	}
}

// On a system that never had a tick, none is overdue: the first tick is the next one.
func TestFirstStartEver(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(24*time.Hour))
	clock := new(steppingClock)
	b.startWithClock(t, b.options.Addr, clock.now)
	testbed.Eventually(t, "the scheduler has looked which tick was the last", func() bool { return b.handled(t).Equal(b.user.Schedule.Prev(time.Now())) })
	clock.waitForLooks(t)
	if attempts, _ := b.attempts(); len(attempts) > 0 || len(b.pending(t)) > 0 {
		t.Errorf("attempted: %v, want nothing", attempts)
	}
}

func TestStopWithoutRedis(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Minute))
	proxy := testbed.NewProxy(t, b.options.Addr)
	stop := b.start(t, proxy.Addr)
	testbed.Eventually(t, "the schedule is visible", func() bool {
		list, err := b.inspector.SchedulerEntries()
		return err == nil && len(list) == 1
	})
	proxy.Down()
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s to stop without Redis", took)
	}
}

func TestNoSchedule(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	stop := b.start(t, b.options.Addr)
	testbed.Await(t, b.log, 1, procs.Match{Text: "No job type has a schedule", Attrs: warned.Attrs})
	testbed.Eventually(t, "the scheduler to be live", func() bool {
		n, err := b.Live(t.Context(), jobs.RoleScheduler)
		return err == nil && n == 1
	})
	stop()
}
