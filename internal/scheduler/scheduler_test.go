package scheduler_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/scheduler"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// testBundle is one Redis and the job types, on which a test starts schedulers.
type testBundle struct {
	*jobs.Jobs
	options   redisconn.Options
	rdb       *redis.Client
	inspector *asynq.Inspector
	metrics   []*prometheus.Registry // of the schedulers
	log       *logBuffer
	user      tasks.Definition
}

// setup gives the job types the schedules; those that are left out have none.
func setup(t *testing.T, schedules map[string]tasks.Schedule) *testBundle {
	t.Helper()
	registry := tasks.Default().Resolve(func(d *tasks.Definition) { d.Schedule = schedules[d.Name] })
	for _, def := range registry.All() {
		if err := def.Schedule.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	o := redistest.Options(t)
	b := &testBundle{options: o, rdb: redistest.Client(t, o), log: new(logBuffer)}
	b.Jobs = jobs.New(b.rdb, registry, b.logger())
	b.inspector = asynq.NewInspectorFromRedisClient(b.rdb)
	b.user, _ = registry.Lookup("user-sync")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.log.text.String())
		}
	})
	return b
}

func userSyncEvery(d time.Duration) map[string]tasks.Schedule {
	return map[string]tasks.Schedule{"user-sync": {Every: d}}
}

func (b *testBundle) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a scheduler with a connection of its own to the address, as each process has, and returns what stops it
// and waits for its end.
func (b *testBundle) start(t *testing.T, addr string) (stop func()) {
	t.Helper()
	o := b.options
	o.Addr = addr
	rdb := redisconn.New(o, redisconn.Patient, b.logger())
	t.Cleanup(func() { _ = rdb.Close() })
	registry := prometheus.NewRegistry()
	b.metrics = append(b.metrics, registry)
	s := scheduler.New(jobs.New(rdb, b.Registry(), b.logger()), redisconn.ConnOpt{Options: o, Limits: redisconn.Patient, Log: b.logger()}, scheduler.Options{Metrics: registry}, b.logger())
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

func (b *testBundle) pending(t *testing.T) []*asynq.TaskInfo {
	t.Helper()
	list, err := b.inspector.ListPendingTasks(b.user.Name, asynq.PageSize(1000))
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		t.Fatal(err)
	}
	return list
}

// deletable is for how long after its tick a task has to be there: another scheduler that found the tick undealt with may
// still be about to enqueue it, and would do so once more.
const deletable = 250 * time.Millisecond

// drain takes what waits out of the queue, as a worker that is done at once, and adds it to seen.
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
		if err := b.Begin(t.Context(), id, tasks.SyncIncremental); err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.DeleteTask(b.user.Name, info.ID); err != nil {
			t.Fatal(err)
		}
		seen[info.ID]++
	}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen in time: %s", what)
		}
	}
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count returns how many lines have all the parts.
func (l *logBuffer) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.text.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

// Schedulers that start at different moments wake up at different ones: with an interval of 2 s the last of these is
// always a second behind the others.
func TestEachTickEnqueuesOnce(t *testing.T) {
	t.Parallel()
	const (
		interval   = 2 * time.Second
		schedulers = 3
		ticks      = 4
	)
	b := setup(t, userSyncEvery(interval))
	seen := make(map[string]int)
	started := time.Now()
	var stops []func()
	for i := range schedulers {
		if i == schedulers-1 {
			for time.Since(started) < interval/2 {
				b.drain(t, seen)
				time.Sleep(5 * time.Millisecond)
			}
		}
		stops = append(stops, b.start(t, b.options.Addr))
	}
	eventually(t, "enough ticks", func() bool {
		b.drain(t, seen)
		return len(seen) >= ticks
	})
	// Whoever is behind has had a go at the last of them, too.
	last := b.log.count("Tick enqueued")
	eventually(t, "the next tick", func() bool {
		b.drain(t, seen)
		return b.log.count("Tick enqueued") > last
	})
	for _, stop := range stops {
		stop()
	}
	eventually(t, "nothing to wait any more", func() bool {
		b.drain(t, seen)
		return len(b.pending(t)) == 0
	})

	var slots []time.Time
	for _, id := range slices.Sorted(maps.Keys(seen)) {
		if seen[id] != 1 {
			t.Errorf("%s was enqueued %d times", id, seen[id])
		}
		run, _ := tasks.ParseRunID(id)
		if !run.Reference.Equal(run.Reference.Truncate(interval)) {
			t.Errorf("the tick at %s is not a multiple of %s", run.Reference, interval)
		}
		slots = append(slots, run.Reference)
	}
	for i := range len(slots) - 1 {
		if slots[i+1].Sub(slots[i]) != interval {
			t.Errorf("the tick at %s was followed by the one at %s", slots[i], slots[i+1])
		}
	}
	if n := b.log.count("Tick enqueued") + b.log.count("Overdue tick enqueued"); n != len(seen) {
		t.Errorf("%d ticks were logged as enqueued, want %d", n, len(seen))
	}
	if b.log.count("Tick was enqueued by another scheduler") < ticks {
		t.Error("the schedulers did not contend: the test has shown nothing")
	}
	counted := telemetrytest.Counted(t, "user-sync", b.metrics...)
	if enqueued, late := counted[`ticks_total{outcome="enqueued"}`], counted[`ticks_total{outcome="caught_up"}`]; int(enqueued+late) != len(seen) {
		t.Errorf("counted %v, want %d ticks", counted, len(seen))
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
	served := func() int {
		return b.log.count("level=INFO", "Tick served by a run that still waits", "job=user-sync", "jobId="+waiting.ID.String())
	}
	eventually(t, "two ticks are served by the waiting run", func() bool { return served() >= 2 })
	var ids []string
	for _, info := range b.pending(t) {
		ids = append(ids, info.ID)
	}
	slices.Sort(ids)
	if want := slices.Sorted(slices.Values([]string{waiting.ID.String(), other.ID.String()})); !slices.Equal(ids, want) {
		t.Errorf("waiting: %v, want %v", ids, want)
	}

	// Once it has begun the next tick has a run of its own.
	if err := b.Begin(t.Context(), waiting.ID, tasks.SyncIncremental); err != nil {
		t.Fatal(err)
	}
	if err := b.inspector.DeleteTask(b.user.Name, waiting.ID.String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a tick is enqueued", func() bool { return b.log.count("level=INFO", "Tick enqueued") == 1 })
}

// Several schedulers find out at the same time that a run which waits serves the tick: that is one tick all the same.
func TestServedTicksCountOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	if _, err := b.Trigger(t.Context(), b.user, &tasks.SyncPayload{SyncType: tasks.SyncIncremental}); err != nil {
		t.Fatal(err)
	}
	first := b.user.Schedule.Slot(time.Now())
	if err := b.EndTick(t.Context(), b.user, first); err != nil {
		t.Fatal(err)
	}
	var stops []func()
	for range 5 {
		stops = append(stops, b.start(t, b.options.Addr))
	}
	last := first
	eventually(t, "some ticks", func() bool {
		var err error
		last, err = b.LastTick(t.Context(), b.user)
		return err == nil && last.Sub(first) >= 5*time.Second
	})
	for _, stop := range stops {
		stop()
	}
	last, err := b.LastTick(t.Context(), b.user)
	if err != nil {
		t.Fatal(err)
	}
	counted := telemetrytest.Counted(t, "user-sync", b.metrics...)
	ticks := last.Sub(first).Seconds()
	if n := counted[`ticks_total{outcome="coalesced"}`] + counted[`ticks_total{outcome="caught_up"}`]; n != ticks || len(counted) > 2 {
		t.Errorf("counted %v, want %v ticks", counted, ticks)
	}
}

// A counter that is not there yet has no rate, and misses its first event.
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
	schedules := map[string]tasks.Schedule{
		"user-sync":    {Every: 20 * time.Minute},
		"project-sync": {Cron: "30 4 * * 1-5"},
		"issue-sync":   {Every: 6 * time.Hour},
	}
	specs := map[string]string{"user-sync": "*/20 * * * *", "project-sync": "30 4 * * 1-5", "issue-sync": "0 */6 * * *"}
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
	eventually(t, "both schedulers are visible", func() bool { return live() == 2 && len(entries()) == 2*len(specs) })
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("it took %s until the schedules were visible", took)
	}
	for _, entry := range entries() {
		name := entry.Task.Type()
		if entry.Spec != specs[name] {
			t.Errorf("%s has the spec %q, want %q", name, entry.Spec, specs[name])
		}
		// The next tick is the first slot after now, wherever the entry's snapshot was a tick ago.
		next := entry.Next.UTC()
		if slot := schedules[name].Slot(next); !slot.Equal(next) {
			t.Errorf("the next tick of %s is at %s, which is no slot", name, next)
		}
		if before := schedules[name].Slot(next.Add(-time.Second)); before.After(time.Now()) {
			t.Errorf("the next tick of %s is at %s, but there is one at %s", name, next, before)
		}
	}
	// The API sees each schedule once, however many schedulers there are.
	seen, err := b.Schedules(time.Now())
	if err != nil || len(seen) != len(specs) {
		t.Errorf("schedules: %+v, %v; want %d", seen, err, len(specs))
	}

	stops[0]()
	eventually(t, "one scheduler is left", func() bool { return live() == 1 && len(entries()) == len(specs) })
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

// asynq keeps a history of each entry without an expiry, which a scheduler must take along.
func TestNothingIsLeftAfterTicks(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Second))
	stop := b.start(t, b.options.Addr)
	seen := make(map[string]int)
	keys := func(pattern string) []string {
		list, err := b.rdb.Keys(t.Context(), pattern).Result()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, "ticks and their history", func() bool {
		b.drain(t, seen)
		return len(seen) >= 2 && len(keys("asynq:scheduler_history:*")) == 1
	})
	stop()
	if left := keys("asynq:scheduler*"); len(left) > 0 {
		t.Errorf("keys left by a scheduler that was stopped: %v", left)
	}
}

// A scheduler that is killed cannot take its history along: the next one that starts does.
func TestHistoryOfADeadScheduler(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Minute))
	b.start(t, b.options.Addr)
	var live []*asynq.SchedulerEntry
	eventually(t, "a live entry", func() bool {
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
	eventually(t, "the dead one's history is gone", func() bool { return b.rdb.Exists(t.Context(), dead).Val() == 0 })
	if b.rdb.Exists(t.Context(), kept).Val() != 1 {
		t.Error("a live scheduler's history is gone, too")
	}
}

func TestTicksWithoutRedis(t *testing.T) {
	t.Parallel()
	const interval = 2 * time.Second
	b := setup(t, userSyncEvery(interval))
	proxy := redistest.NewProxy(t, b.options.Addr)
	b.start(t, proxy.Addr)
	seen := make(map[string]int)
	enqueued := func(n int) func() bool {
		return func() bool {
			b.drain(t, seen)
			return len(seen) >= n
		}
	}
	eventually(t, "a tick", enqueued(1))
	proxy.Down()
	eventually(t, "a tick is missed", func() bool { return b.log.count("level=WARN", "Tick not enqueued yet", "job=user-sync") > 0 })
	if b.log.count("level=WARN", "Redis unreachable") == 0 {
		t.Error("the loss of Redis was not logged")
	}
	eventually(t, "nothing to wait any more", func() bool {
		b.drain(t, seen)
		return len(b.pending(t)) == 0
	})
	before := len(seen)
	proxy.Up()
	eventually(t, "a tick after Redis is back", enqueued(before+1))
	eventually(t, "the return of Redis is logged", func() bool { return b.log.count("level=INFO", "Redis reachable again") > 0 })
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was enqueued %d times", id, n)
		}
	}
}

// A scheduler that comes back after several ticks have passed enqueues the latest of them, soon, and once.
func TestOverdueTick(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(24*time.Hour))
	today := b.user.Schedule.Slot(time.Now())
	if time.Until(today.Add(24*time.Hour)) < time.Minute {
		t.Log("the day ends within a minute: its tick may come on top")
	}
	if err := b.EndTick(t.Context(), b.user, today.Add(-72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for range 2 {
		b.start(t, b.options.Addr)
	}
	eventually(t, "the overdue tick", func() bool { return b.log.count("level=INFO", "Overdue tick enqueued") == 1 })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if waiting := b.pending(t); len(waiting) != 1 || waiting[0].ID != tasks.TickID("user-sync", today).String() {
		t.Errorf("waiting: %+v, want the tick of %s alone", waiting, today)
	}
	if got := telemetrytest.Counted(t, "user-sync", b.metrics...); !maps.Equal(got, map[string]float64{`ticks_total{outcome="caught_up"}`: 1}) {
		t.Errorf("counted %v, want one that was caught up", got)
	}
}

// On a system that never had a tick there is none overdue: the first is the next one.
func TestFirstStartEver(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(24*time.Hour))
	b.start(t, b.options.Addr)
	eventually(t, "the scheduler has looked for overdue ticks", func() bool {
		last, err := b.LastTick(t.Context(), b.user)
		return err == nil && last.Equal(b.user.Schedule.Slot(time.Now()))
	})
	if waiting := b.pending(t); len(waiting) > 0 {
		t.Errorf("waiting: %+v, want nothing", waiting)
	}
}

func TestStopWithoutRedis(t *testing.T) {
	t.Parallel()
	b := setup(t, userSyncEvery(time.Minute))
	proxy := redistest.NewProxy(t, b.options.Addr)
	stop := b.start(t, proxy.Addr)
	eventually(t, "the schedule is visible", func() bool {
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
	eventually(t, "the scheduler lives, and says that it has nothing to do", func() bool {
		n, err := b.Live(t.Context(), jobs.RoleScheduler)
		return err == nil && n == 1 && b.log.count("level=WARN", "No job type has a schedule") == 1
	})
	stop()
}
