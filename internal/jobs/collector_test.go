package jobs_test

import (
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	lastTick = `schedule_last_tick_timestamp_seconds{job_type="user-sync"}`
	dueTick  = `schedule_due_tick_timestamp_seconds{job_type="user-sync"}`
)

func tasksIn(state, job, unit string) string {
	return fmt.Sprintf("queue_tasks{job_type=%q,state=%q,unit=%q}", job, state, unit)
}

func oldest(job, unit string) string {
	return fmt.Sprintf("queue_oldest_waiting_seconds{job_type=%q,unit=%q}", job, unit)
}

// collect returns the metrics of the jobs, by their names without the namespace. It checks that they were described before.
func collect(t *testing.T, j *jobs.Jobs) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(j.Collector())
	metrics := make(map[string]float64)
	for series, value := range telemetrytest.Gather(t, registry) {
		metrics[strings.TrimPrefix(series, "codex_jobs_")] = value
	}
	return metrics
}

// unused returns the metrics of an empty Redis, without the time of the due tick. A job type without a schedule has no series
// of a schedule.
func (b *testBundle) unused() map[string]float64 {
	metrics := map[string]float64{
		"redis_up": 1, "redis_writable": 1, `processes{role="worker"}`: 0, `processes{role="scheduler"}`: 0,
		lastTick: 0, `schedule_interval_seconds{job_type="user-sync"}`: 1200,
	}
	for _, job := range b.Registry().Names() {
		metrics[fmt.Sprintf("queue_paused{job_type=%q}", job)] = 0
		metrics[fmt.Sprintf("history_waiting{job_type=%q}", job)] = 0
		metrics[fmt.Sprintf("history_dropped_total{job_type=%q}", job)] = 0
		for _, unit := range []string{"run", "range"} {
			metrics[oldest(job, unit)] = 0
			for _, state := range []string{"waiting", "active", "delayed", "completed", "failed"} {
				metrics[tasksIn(state, job, unit)] = 0
			}
		}
	}
	return metrics
}

// wantCollected checks that the metrics are the wanted ones and the due tick. It does not compare the ages.
func (b *testBundle) wantCollected(t *testing.T, want map[string]float64, ages ...string) {
	t.Helper()
	before := b.def.Schedule.Prev(time.Now())
	got := collect(t, b.Jobs)
	for _, age := range ages {
		got[age] = want[age]
	}
	if due := got[dueTick]; due != float64(before.Unix()) && due != float64(b.def.Schedule.Prev(time.Now()).Unix()) {
		t.Errorf("the tick that was due is said to be at %v, it was at %d", due, before.Unix())
	}
	delete(got, dueTick)
	if !maps.Equal(got, want) {
		t.Errorf("collected %v\nwant %v", got, want)
	}
}

func TestCollectFromUnusedRedis(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	b.wantCollected(t, b.unused())
}

func TestCollect(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	of := func(job string) *testBundle {
		other := *b
		other.def, _ = b.Registry().Lookup(job)
		return &other
	}
	want := b.unused()

	// Of the user sync one is worked on, two wait behind it, three have failed, and four are for later.
	b.trigger(ctx, t, tasks.SyncFull)
	taken, _ := b.hold(t)
	<-taken
	b.end(ctx, t, 3)
	client := asynq.NewClientFromRedisClient(b.rdb)
	for i := range 6 {
		var options []asynq.Option
		if i < 4 {
			options = append(options, asynq.ProcessIn(time.Hour))
		}
		_, err := client.EnqueueContext(ctx, b.def.NewTask(tasks.TriggerID("user-sync", time.Now()), []byte("{}"), nil), options...)
		must(err)
	}
	for state, n := range map[string]float64{"active": 1, "waiting": 2, "failed": 3, "delayed": 4} {
		want[tasksIn(state, "user-sync", "run")] = n
	}

	// The project sync has completed one, and is paused; five ranges of the issue sync wait.
	project, issue := of("project-sync"), of("issue-sync")
	done := project.trigger(ctx, t, tasks.SyncFull).ID
	began, release := project.hold(t)
	<-began
	release()
	testbed.Eventually(t, "a run to complete", func() bool {
		info, err := b.inspector.GetTaskInfo("project-sync", done.String())
		return err == nil && info.State == asynq.TaskStateCompleted
	})
	must(b.Pause(ctx, project.def, jobs.Trigger{}))
	for i := range 5 {
		must(b.EnqueueRange(ctx, issue.def, tasks.RangeID{Run: tasks.TriggerID("issue-sync", time.Now()), Index: i}, []byte("{}")))
	}
	want[tasksIn("completed", "project-sync", "run")] = 1
	want[`queue_paused{job_type="project-sync"}`] = 1
	want[tasksIn("waiting", "issue-sync", "range")] = 5

	for id, role := range map[string]jobs.Role{"a": jobs.RoleWorker, "b": jobs.RoleWorker, "c": jobs.RoleScheduler} {
		must(b.Heartbeat(ctx, role, id, jobs.About{}))
	}
	want[`processes{role="worker"}`], want[`processes{role="scheduler"}`] = 2, 1
	tick := b.def.Schedule.Prev(time.Now().Add(-time.Hour))
	must(b.FirstTick(ctx, b.def, tick))
	want[lastTick] = float64(tick.Unix())

	// The oldest that wait get older.
	first := collect(t, b.Jobs)
	for _, series := range []string{oldest("user-sync", "run"), oldest("issue-sync", "range")} {
		if age := first[series]; age <= 0 || age > 60 {
			t.Errorf("%s is %v", series, age)
		}
		testbed.Eventually(t, series+" to grow", func() bool { return collect(t, b.Jobs)[series] > first[series]+0.1 })
	}
	b.wantCollected(t, want, oldest("user-sync", "run"), oldest("issue-sync", "range"))
}

// asynq does not know how long a task has waited that was released, or retried by hand.
func TestOldestOfThoseThatWaitAgain(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	run := tasks.TickID("user-sync", time.Now().Add(-time.Hour))
	part := tasks.RangeID{Run: run, Index: 3}
	if err := b.EnqueueRange(ctx, b.def, part, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(ctx, b.def.NewTask(run, []byte("{}"), nil)); err != nil {
		t.Fatal(err)
	}
	// A worker that releases them leaves this.
	for queue, id := range map[string]string{b.def.Name: run.String(), b.def.RangeQueue(): part.String()} {
		if n, err := b.rdb.HDel(ctx, "asynq:{"+queue+"}:t:"+id, "pending_since").Result(); n != 1 || err != nil {
			t.Fatalf("%s: %d, %v", id, n, err)
		}
	}
	b.trigger(ctx, t, tasks.SyncFull) // a younger one
	for _, unit := range []string{"run", "range"} {
		if age := collect(t, b.Jobs)[oldest("user-sync", unit)]; age < 3600 || age > 3660 {
			t.Errorf("the oldest %s is said to have waited %v s, want an hour since its tick", unit, age)
		}
	}
}

// A task that is no run of ours does not hide the other metrics.
func TestOldestIsNoRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	task := asynq.NewTask("user-sync", nil, asynq.Queue("user-sync"), asynq.TaskID("garbage"))
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(ctx, task); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.HDel(ctx, "asynq:{user-sync}:t:garbage", "pending_since").Err(); err != nil {
		t.Fatal(err)
	}
	want := b.unused()
	want[tasksIn("waiting", "user-sync", "run")] = 1
	b.wantCollected(t, want)
}

// Without Redis the only metric is redis_up, and it comes in time.
func TestCollectWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*testbed.Proxy){
		"down": (*testbed.Proxy).Down, "hanging": (*testbed.Proxy).Freeze,
		"slow": func(p *testbed.Proxy) { p.Delay(400 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := redistest.Options(t)
			proxy := testbed.NewProxy(t, o.Addr)
			o.Addr = proxy.Addr
			j := jobs.New(redistest.Client(t, o), codex.Registry(), slog.New(slog.DiscardHandler))
			if got := collect(t, j); got["redis_up"] != 1 {
				t.Errorf("before: %v", got)
			}
			away(proxy)
			begun := time.Now()
			got := collect(t, j)
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("it took %s", took)
			}
			if !maps.Equal(got, map[string]float64{"redis_up": 0}) {
				t.Errorf("without Redis: %v", got)
			}
			proxy.Thaw()
			proxy.Delay(0)
			proxy.Up()
			testbed.Eventually(t, "Redis to be back", func() bool { return collect(t, j)["redis_up"] == 1 })
		})
	}
}
