package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// testBundle is a Redis and the job types, for a test that starts workers.
type testBundle struct {
	*jobs.Jobs
	options   redisconn.Options
	rdb       *redis.Client
	inspector *asynq.Inspector
	log       *testbed.Log
	logger    *slog.Logger
	user      tasks.Definition
	metrics   []*prometheus.Registry // of the workers
	stops     []func()               // which end the workers
}

// setup changes every Definition first.
func setup(t *testing.T, change func(*tasks.Definition)) *testBundle {
	t.Helper()
	registry, err := tasks.NewRegistry(codex.UserSync, codex.ProjectSync, codex.IssueSync)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		registry = registry.Resolve(change)
	}
	o := redistest.Options(t)
	b := &testBundle{options: o, rdb: redistest.Client(t, o)}
	b.log, b.logger = testbed.NewLog(t)
	b.Jobs = jobs.New(b.rdb, registry, b.logger)
	b.inspector = asynq.NewInspectorFromRedisClient(b.rdb)
	b.user, _ = registry.Lookup("user-sync")
	return b
}

// connect makes a client of a worker's own.
func (b *testBundle) connect(hooks ...redis.Hook) redis.UniversalClient {
	return redisconn.New(b.options, redisconn.Worker, b.logger, hooks...)
}

// start runs a worker with the same handler for all job types. The function that it returns stops the worker and waits for its
// end.
func (b *testBundle) start(t *testing.T, o worker.Options, p jobtype.Handler) (stop func()) {
	t.Helper()
	return b.startWith(t, o, p, func(*jobs.Jobs) {})
}

// startKeeping is start with a worker that keeps the history.
func (b *testBundle) startKeeping(t *testing.T, o worker.Options, p jobtype.Handler) {
	t.Helper()
	b.startWith(t, o, p, (*jobs.Jobs).KeepHistory)
}

func (b *testBundle) startWith(t *testing.T, o worker.Options, p jobtype.Handler, prepare func(*jobs.Jobs)) (stop func()) {
	t.Helper()
	if o.Concurrency == 0 {
		o.Concurrency = 3
	}
	registry := prometheus.NewRegistry()
	o.Metrics = registry
	o.Connect = b.connect
	handlers := make(map[string]jobtype.Handler)
	for _, name := range b.Registry().Names() {
		handlers[name] = p
	}
	// Each worker has connections of its own, as each process has.
	rdb := b.connect()
	t.Cleanup(func() { _ = rdb.Close() })
	j := jobs.New(rdb, b.Registry(), b.logger)
	prepare(j)
	w, err := worker.New(j, handlers, o, b.logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	b.metrics, b.stops = append(b.metrics, registry), append(b.stops, stop)
	return stop
}

func (b *testBundle) trigger(t *testing.T, job, syncType string) string {
	t.Helper()
	def, _ := b.Registry().Lookup(job)
	accepted, err := b.Trigger(t.Context(), def, &tasks.SyncPayload{SyncType: syncType})
	if err != nil {
		t.Fatal(err)
	}
	return accepted.ID.String()
}

// await waits until the run is in the state.
func (b *testBundle) await(t *testing.T, id string, state asynq.TaskState) *asynq.TaskInfo {
	t.Helper()
	return b.awaitWithin(t, testbed.WaitLimit, id, state)
}

func (b *testBundle) awaitWithin(t *testing.T, limit time.Duration, id string, state asynq.TaskState) *asynq.TaskInfo {
	t.Helper()
	var info *asynq.TaskInfo
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	testbed.Within(t, limit, fmt.Sprintf("%s to be %s", id, state), func() bool {
		info, err = b.inspector.GetTaskInfo(run.Job, id)
		return err == nil && info.State == state
	})
	return info
}

func TestRunCompletes(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		if run.Number != 1 || run.Checkpoint != nil || run.Payload.UniqueKey() != tasks.SyncFull {
			return nil, fmt.Errorf("unexpected run: %+v", run)
		}
		return map[string]any{"answer": 42}, nil
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	info := b.await(t, id, asynq.TaskStateCompleted)
	if string(info.Result) != `{"answer":42}` {
		t.Errorf("result %s", info.Result)
	}
	if keys, err := b.rdb.Keys(t.Context(), "codex-jobs:*run*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left of the run: %v, %v", keys, err)
	}
	if keys, err := b.rdb.Keys(t.Context(), "codex-jobs:*waiting*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left of its waiting: %v, %v", keys, err)
	}
}

func TestNewWantsEveryHandler(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	_, err := worker.New(b.Jobs, map[string]jobtype.Handler{"user-sync": nil}, worker.Options{}, b.logger)
	if err == nil || !strings.Contains(err.Error(), `"user-sync"`) {
		t.Errorf("got %v, want an error that names the job type", err)
	}
}

// Over all workers at most one run of a job type is active. The next one waits, at no cost.
func TestOneActiveRunOfAJobType(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var active, most atomic.Int32
	entered, proceed := make(chan string), make(chan struct{})
	handler := func(_ context.Context, run *jobtype.Attempt) (any, error) {
		most.Store(max(most.Load(), active.Add(1)))
		defer active.Add(-1)
		entered <- run.ID.String()
		<-proceed
		return nil, nil
	}
	for range 3 {
		b.start(t, worker.Options{}, handler)
	}
	first := b.trigger(t, "user-sync", tasks.SyncFull)
	if got := testbed.Receive(t, "the first run", entered); got != first {
		t.Fatalf("started %s, want %s", got, first)
	}
	second, third := b.trigger(t, "user-sync", tasks.SyncFull), b.trigger(t, "user-sync", tasks.SyncIncremental)
	// Another job type is not held up.
	other := b.trigger(t, "issue-sync", tasks.SyncFull)
	if got := testbed.Receive(t, "another job type's run", entered); got != other {
		t.Fatalf("started %s, want %s", got, other)
	}
	status, err := b.Status(t.Context(), b.user)
	if err != nil || status.Counts.Active != 1 || status.Counts.Waiting != 2 {
		t.Errorf("status %+v, %v; want 1 active and 2 waiting", status.Counts, err)
	}
	proceed <- struct{}{}
	proceed <- struct{}{}
	for _, want := range []string{second, third} {
		if got := testbed.Receive(t, "the next run", entered); got != want {
			t.Fatalf("started %s, want %s", got, want)
		}
		proceed <- struct{}{}
		if info := b.await(t, want, asynq.TaskStateCompleted); info.Retried != 0 {
			t.Errorf("%s was tried again %d times", want, info.Retried)
		}
	}
	if n := most.Load(); n != 2 { // one of each of two job types
		t.Errorf("up to %d runs at a time, want 2", n)
	}
}

// With the defaults the retries come after 5 and 25 s, each within a second of that.
func TestRetriesComeInTime(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	type attempt struct {
		number         int
		started, ended time.Time
	}
	attempts := make(chan attempt, 10)
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		attempts <- attempt{run.Number, time.Now(), time.Now()}
		return nil, fmt.Errorf("attempt %d failed", run.Number)
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	previous := testbed.Receive(t, "the first attempt", attempts)
	b.await(t, id, asynq.TaskStateRetry)
	if status, err := b.Status(t.Context(), b.user); err != nil || status.Counts.Delayed != 1 {
		t.Errorf("status %+v, %v; want 1 delayed", status.Counts, err)
	}
	for i, want := range []time.Duration{5 * time.Second, 25 * time.Second} {
		next := testbed.Receive(t, "the next attempt", attempts)
		if next.number != i+2 {
			t.Errorf("attempt %d is numbered %d", i+2, next.number)
		}
		if waited := next.started.Sub(previous.ended); (waited - want).Abs() > time.Second {
			t.Errorf("attempt %d came after %s, want %s within 1 s", next.number, waited, want)
		}
		previous = next
	}
	info := b.await(t, id, asynq.TaskStateArchived)
	if info.LastErr != "attempt 3 failed" {
		t.Errorf("the failed run's reason is %q", info.LastErr)
	}
	if len(attempts) != 0 {
		t.Error("there was a fourth attempt")
	}
	b.wantCounted(t, counts{
		`runs_total{outcome="failed"}`: 1, `retries_total{unit="run"}`: 2, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
	})
	if took := b.observed(t, "run_duration_seconds"); took < 28 || took > 40 {
		t.Errorf("the run took %v s from its first start to its end", took)
	}
	if waited := b.observed(t, "run_start_delay_seconds"); waited > 3 {
		t.Errorf("the run waited %v s for its first start", waited)
	}
}

func quickRetries(d *tasks.Definition) { d.Backoff, d.BackoffFactor = time.Second, 1 }

func TestPanicIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		if run.Number == 1 {
			panic("told to")
		}
		return run.Number, nil
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 1 || info.LastErr != "panic: told to" || string(info.Result) != "2" {
		t.Errorf("retried %d times, last error %q, result %s", info.Retried, info.LastErr, info.Result)
	}
	if len(b.log.Find(procs.Match{Text: "worker_test.go"})) == 0 {
		t.Error("the log has no stack")
	}
	b.wantCounted(t, counts{
		`runs_total{outcome="completed"}`: 1, `retries_total{unit="run"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
	})
}

func TestAlwaysPanicking(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var attempts atomic.Int32
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) {
		attempts.Add(1)
		panic("again")
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	b.await(t, id, asynq.TaskStateArchived)
	if n := attempts.Load(); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
}

// A task that is no run fails at once, and does no harm to others.
func TestPoisonedTasks(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]struct {
		id      string
		payload []byte
		reason  string
	}{
		"garbage":           {"1000:user-sync", []byte("\x00\xff garbage"), "invalid payload: the body was not valid UTF-8"},
		"unknown field":     {"1001:user-sync", []byte(`{"syncType":"full","x":1}`), `invalid payload: the field "x" was not known`},
		"huge":              {"1002:user-sync", bytes.Repeat([]byte("x"), 1<<20), "invalid payload: the body was not valid JSON"},
		"foreign id":        {"0b3e7c9a", []byte(`{}`), `job id "0b3e7c9a" is not of the form`},
		"other job type's":  {"1003:issue-sync", []byte(`{}`), `job id "1003:issue-sync" is not one of user-sync`},
		"out of range":      {"1004:user-sync", []byte(`{"batchSize":0}`), "invalid payload: batchSize was 0"},
		"null as a payload": {"1005:user-sync", []byte(`null`), "invalid payload: the body was null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			task := asynq.NewTask("user-sync", poison.payload, b.user.TaskOptions(poison.id)...)
			if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			healthy := b.trigger(t, "user-sync", tasks.SyncFull)
			b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) { return nil, nil })
			b.await(t, healthy, asynq.TaskStateCompleted)
			info, err := b.inspector.GetTaskInfo("user-sync", poison.id)
			if err != nil || info.State != asynq.TaskStateArchived || info.Retried != 0 || !strings.Contains(info.LastErr, poison.reason) {
				t.Errorf("got %+v, %v; want it archived at once for %q", info, err, poison.reason)
			}
			// It has never started.
			b.wantCounted(t, counts{
				`runs_total{outcome="failed"}`: 1, `runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
			})
		})
	}
}

// stoppable works until it is asked to stop, and saves where it got to.
func stoppable(started chan<- *jobtype.Attempt) jobtype.Handler {
	return func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		started <- run
		select {
		case <-run.Stop:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := run.Save(ctx, []byte(string(run.Checkpoint)+"+"), 50); err != nil {
			return nil, err
		}
		return nil, errors.New("stopped")
	}
}

// A shutdown releases the run with its state, at no cost, however often it happens.
func TestShutdownReleasesTheRun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	started := make(chan *jobtype.Attempt, 1)
	for i := range 5 { // more often than there are attempts
		stop := b.start(t, worker.Options{}, stoppable(started))
		run := testbed.Receive(t, "the run", started)
		if run.ID.String() != id || run.Number != 1 || string(run.Checkpoint) != strings.Repeat("+", i) {
			t.Fatalf("round %d: %s, attempt %d, checkpoint %q", i, run.ID, run.Number, run.Checkpoint)
		}
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 9*time.Second {
			t.Errorf("the worker took %s to stop", took)
		}
		info, err := b.inspector.GetTaskInfo("user-sync", id)
		if err != nil || info.State != asynq.TaskStatePending || info.Retried != 0 || info.LastErr != "" {
			t.Fatalf("round %d: %+v, %v; want it pending at no cost", i, info, err)
		}
	}
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) { return string(run.Checkpoint), nil })
	if info := b.await(t, id, asynq.TaskStateCompleted); string(info.Result) != `"+++++"` {
		t.Errorf("result %s", info.Result)
	}
	if len(b.log.Find(procs.Match{Text: "Recovered"})) > 0 {
		t.Error("a run that was released counts as rescued")
	}
	b.wantCounted(t, counts{`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1})
}

// A run that ends while its worker shuts down stays ended.
func TestShutdownAtTheEndOfARun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	started := make(chan struct{})
	var runs atomic.Int32
	handler := func(_ context.Context, run *jobtype.Attempt) (any, error) {
		if runs.Add(1) == 1 {
			close(started)
			<-run.Stop
		}
		return "done", nil
	}
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	stop := b.start(t, worker.Options{}, handler)
	<-started
	stop()
	b.await(t, id, asynq.TaskStateCompleted)
	if n := runs.Load(); n != 1 {
		t.Errorf("the run was worked on %d times", n)
	}
}

func TestShutdownAbandonsARunThatDoesNotStop(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	started := make(chan struct{}, 1)
	stop := b.start(t, worker.Options{DrainTimeout: 100 * time.Millisecond}, func(ctx context.Context, _ *jobtype.Attempt) (any, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, errors.New("some error that the end of the context led to")
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the run", started)
	stop()
	info, err := b.inspector.GetTaskInfo("user-sync", id)
	if err != nil || info.State != asynq.TaskStatePending || info.Retried != 0 {
		t.Errorf("%+v, %v; want it pending at no cost", info, err)
	}
}

func TestRescuedRun(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		crashes int
		state   asynq.TaskState
	}{{1, asynq.TaskStateCompleted}, {5, asynq.TaskStateCompleted}, {6, asynq.TaskStateArchived}} {
		t.Run(fmt.Sprint(test.crashes), func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			id := b.trigger(t, "user-sync", tasks.SyncFull)
			run, err := tasks.ParseRunID(id)
			if err != nil {
				t.Fatal(err)
			}
			for range test.crashes { // workers that took the run and died
				state, err := b.OpenRun(t.Context(), run, jobs.NewOwner("host:1:abc"))
				if err != nil {
					t.Fatal(err)
				}
				if err := state.Save(t.Context(), []byte("half"), jobs.Progress{Percent: 50}); err != nil {
					t.Fatal(err)
				}
			}
			b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
				return fmt.Sprint(run.Number, string(run.Checkpoint)), nil
			})
			info := b.await(t, id, test.state)
			if len(b.log.Find(procs.Match{Text: "Recovered run from a dead worker"})) == 0 {
				t.Error("the log does not say that the run was rescued")
			}
			if found, err := b.Find(t.Context(), run); err != nil || len(found.Rescues) != test.crashes {
				t.Errorf("%d rescues are recorded of %d: %v", len(found.Rescues), test.crashes, err)
			} else if last := found.Rescues[test.crashes-1]; last.Lost != "host:1:abc" || !strings.Contains(last.Worker, fmt.Sprintf(":%d:", os.Getpid())) {
				t.Errorf("the last rescue is %+v", last)
			}
			if test.state == asynq.TaskStateCompleted && string(info.Result) != `"1half"` {
				t.Errorf("result %s, want the first attempt to go on at its checkpoint", info.Result)
			}
			if test.state == asynq.TaskStateArchived && !strings.Contains(info.LastErr, "given up") {
				t.Errorf("reason %q", info.LastErr)
			}
			// The dead ones have taken along what they had counted, and that the run had started.
			outcome := map[asynq.TaskState]string{asynq.TaskStateCompleted: "completed", asynq.TaskStateArchived: "failed"}[test.state]
			b.wantCounted(t, counts{
				`runs_total{outcome="` + outcome + `"}`: 1, `recoveries_total{unit="run"}`: 1, "run_duration_seconds_count": 1,
			})
		})
	}
}

// A worker that finds its lease lost releases its run, at no cost.
func TestLostLease(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	started := make(chan *jobtype.Attempt, 1)
	b.start(t, worker.Options{}, func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		if run.Checkpoint != nil {
			return "finished", nil
		}
		if err := run.Save(ctx, []byte("half"), 50); err != nil {
			return nil, err
		}
		started <- run
		<-ctx.Done()
		return nil, ctx.Err()
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the run", started)
	if err := b.rdb.Del(t.Context(), "codex-jobs:{user-sync}:lease").Err(); err != nil {
		t.Fatal(err)
	}
	if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 0 || string(info.Result) != `"finished"` {
		t.Errorf("retried %d times, result %s", info.Retried, info.Result)
	}
	if len(b.log.Find(procs.Match{Text: "Lost the lease"})) == 0 {
		t.Error("the log does not say that the lease was lost")
	}
}

// With a concurrency of 1, one worker still does runs of all job types.
func TestConcurrencyOne(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var active, most atomic.Int32
	b.start(t, worker.Options{Concurrency: 1}, func(context.Context, *jobtype.Attempt) (any, error) {
		most.Store(max(most.Load(), active.Add(1)))
		defer active.Add(-1)
		time.Sleep(50 * time.Millisecond) // the work
		return nil, nil
	})
	var ids []string
	for _, job := range b.Registry().Names() {
		ids = append(ids, b.trigger(t, job, tasks.SyncFull), b.trigger(t, job, tasks.SyncIncremental))
	}
	for _, id := range ids {
		if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 0 {
			t.Errorf("%s was tried again %d times", id, info.Retried)
		}
	}
	if n := most.Load(); n != 1 {
		t.Errorf("up to %d runs at a time, want 1", n)
	}
}

// Two workers with one place each take the runs of two job types that come at once. No run waits for a place that is taken.
func TestPlacesElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	for range 20 {
		started, proceed := make(chan string, 2), make(chan struct{})
		handler := func(_ context.Context, run *jobtype.Attempt) (any, error) {
			started <- run.ID.String()
			<-proceed
			return nil, nil
		}
		var stops []func()
		for range 2 {
			stops = append(stops, b.start(t, worker.Options{Concurrency: 1}, handler))
		}
		ids := []string{b.trigger(t, "user-sync", tasks.SyncFull), b.trigger(t, "issue-sync", tasks.SyncFull)}
		for range ids {
			testbed.Receive(t, "both runs to start", started)
		}
		close(proceed)
		for _, id := range ids {
			if info := b.await(t, id, asynq.TaskStateCompleted); info.Retried != 0 {
				t.Errorf("%s was tried again %d times", id, info.Retried)
			}
		}
		for _, stop := range stops {
			stop()
		}
	}
}

// A worker whose Redis hangs stops its run before another worker can have the lease.
func TestHangingRedis(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	proxy := testbed.NewProxy(t, b.options.Addr)
	direct := b.options.Addr
	b.options.Addr = proxy.Addr
	started, ended := make(chan struct{}, 1), make(chan time.Time, 1)
	b.start(t, worker.Options{}, func(ctx context.Context, _ *jobtype.Attempt) (any, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- time.Now()
		return nil, ctx.Err()
	})
	b.options.Addr = direct
	b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the run", started)
	next := make(chan time.Time, 1)
	b.trigger(t, "user-sync", tasks.SyncIncremental)
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) {
		select {
		case next <- time.Now():
		default:
		}
		return nil, nil
	})
	proxy.Freeze()
	defer proxy.Thaw()
	if other := testbed.Receive(t, "another worker to have the next run", next); testbed.Receive(t, "the first run to end", ended).After(other) {
		t.Error("two runs of a job type were active")
	}
}

func TestPausedRunsWait(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	started, proceed := make(chan string, 10), make(chan struct{})
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		started <- run.ID.String()
		<-proceed
		return nil, nil
	})
	first := b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the first run", started)
	if err := b.Pause(t.Context(), b.user, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	second := b.trigger(t, "user-sync", tasks.SyncFull)
	proceed <- struct{}{}
	b.await(t, first, asynq.TaskStateCompleted) // an active run goes on to its end
	// Long after it would have started, were it not for the pause: another job type's run comes and goes.
	other := b.trigger(t, "issue-sync", tasks.SyncFull)
	testbed.Receive(t, "another job type's run", started)
	proceed <- struct{}{}
	b.await(t, other, asynq.TaskStateCompleted)
	if info, err := b.inspector.GetTaskInfo("user-sync", second); err != nil || info.State != asynq.TaskStatePending {
		t.Errorf("%+v, %v; want it pending", info, err)
	}
	if err := b.Resume(t.Context(), b.user, jobs.Trigger{}); err != nil {
		t.Fatal(err)
	}
	testbed.Receive(t, "the second run", started)
	proceed <- struct{}{}
	b.await(t, second, asynq.TaskStateCompleted)
}

// The last 10 completed and 20 failed runs are kept, within 2 s of an end.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.Attempts = 1 })
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		if run.Payload.UniqueKey() == tasks.SyncIncremental {
			return nil, errors.New("incremental runs fail here")
		}
		return nil, nil
	})
	var completed, failed []string
	for range 25 {
		completed = append(completed, b.trigger(t, "user-sync", tasks.SyncFull))
		failed = append(failed, b.trigger(t, "user-sync", tasks.SyncIncremental))
		b.await(t, failed[len(failed)-1], asynq.TaskStateArchived)
	}
	kept := func(list func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error)) []string {
		infos, err := list("user-sync", asynq.PageSize(1000))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, info := range infos {
			ids = append(ids, info.ID)
		}
		slices.Sort(ids)
		return ids
	}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, f := kept(b.inspector.ListCompletedTasks), kept(b.inspector.ListArchivedTasks)
		if slices.Equal(c, completed[15:]) && slices.Equal(f, failed[5:]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("kept 2 s after the end:\n%d completed %v\n%d failed %v", len(c), c, len(f), f)
		}
	}
}

func TestMaxDuration(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.MaxDuration = 300 * time.Millisecond })
	b.start(t, worker.Options{}, func(ctx context.Context, _ *jobtype.Attempt) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	if info := b.await(t, id, asynq.TaskStateArchived); info.Retried != 0 || info.LastErr != "exceeded its maximum duration of 300ms" {
		t.Errorf("retried %d times, reason %q", info.Retried, info.LastErr)
	}
	b.wantCounted(t, counts{`runs_total{outcome="failed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1})
}

// A Redis that is away for a while costs no attempt, whether a worker waits or works.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	proxy := testbed.NewProxy(t, b.options.Addr)
	direct := b.options.Addr
	b.options.Addr = proxy.Addr
	started, proceed := make(chan struct{}, 1), make(chan struct{})
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) {
		started <- struct{}{}
		<-proceed
		return "done", nil
	})
	b.options.Addr = direct
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the run", started)
	proxy.Down()
	close(proceed) // the run ends while Redis is away
	testbed.Eventually(t, "the log to say that Redis is away", func() bool {
		return len(b.log.Find(procs.Match{Text: "Redis unreachable"})) > 0 || len(b.log.Find(procs.Match{Text: "trying again"})) > 0
	})
	proxy.Up()
	info := b.await(t, id, asynq.TaskStateCompleted)
	if string(info.Result) != `"done"` || info.Retried != 0 {
		t.Errorf("result %s, retried %d times", info.Result, info.Retried)
	}
}

// BenchmarkTriggerToStart measures the time from a trigger to the first line of its handler on an idle system.
func BenchmarkTriggerToStart(b *testing.B) {
	o := redistest.Options(b)
	rdb := redistest.Client(b, o)
	log := slog.New(slog.DiscardHandler)
	j := jobs.New(rdb, codex.Registry(), log)
	started := make(chan time.Time, 1)
	handler := func(context.Context, *jobtype.Attempt) (any, error) {
		started <- time.Now()
		return nil, nil
	}
	handlers := make(map[string]jobtype.Handler)
	for _, name := range j.Registry().Names() {
		handlers[name] = handler
	}
	w, err := worker.New(j, handlers,
		worker.Options{Concurrency: 3, Connect: func(hooks ...redis.Hook) redis.UniversalClient {
			return redisconn.New(o, redisconn.Worker, log, hooks...)
		}}, log)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	defer running.Wait()
	defer cancel()
	var waits []time.Duration
	for b.Loop() {
		time.Sleep(1300 * time.Millisecond) // idle: no session lingers
		before := time.Now()
		if _, err := j.Trigger(ctx, codex.UserSync, &tasks.SyncPayload{SyncType: tasks.SyncFull}); err != nil {
			b.Fatal(err)
		}
		waits = append(waits, (<-started).Sub(before))
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}
