package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/scheduler"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// answerLimit is how long the API may take to answer, in any state of its servers.
const answerLimit = 2 * time.Second

// testBundle is a running API with a Redis database of its own.
type testBundle struct {
	// url is the API's, without a slash at the end.
	url    string
	client *http.Client
	server *api.Server
	// proxy stands between the API and Redis; everything else here goes to Redis directly.
	proxy     *testbed.Proxy
	redis     redisconn.Options
	rdb       *redis.Client
	jobs      *jobs.Jobs
	inspector *asynq.Inspector
	log       *testbed.Log
	// late is how late the test's own timer was at most, in nanoseconds: see limit.
	late *atomic.Int64
	// undescribed leaves out the comparison with the description of the API, for tests that send a lot at once.
	undescribed bool
}

// database is a MongoDB with a given answer.
type database struct{ err error }

func (d database) Ping(context.Context) error { return d.err }

// syncs returns the job types that these tests know, however many the product has.
func syncs() *tasks.Registry {
	registry, err := tasks.NewRegistry(codex.UserSync, codex.ProjectSync, codex.IssueSync)
	if err != nil {
		panic(err)
	}
	return registry
}

// setup starts an API over a registry of all job types, of which the user sync is scheduled. Adjust changes its options.
func setup(t testing.TB, adjust ...func(*api.Options)) *testBundle {
	t.Helper()
	return setupRegistry(t, syncs(), adjust...)
}

func setupRegistry(t testing.TB, registry *tasks.Registry, adjust ...func(*api.Options)) *testBundle {
	t.Helper()
	b := &testBundle{redis: redistest.Options(t), late: new(atomic.Int64), client: &http.Client{Transport: new(http.Transport)}}
	b.measureLateness(t)
	b.rdb = redistest.Client(t, b.redis)
	b.jobs = jobs.New(b.rdb, registry, slog.New(slog.DiscardHandler))
	b.inspector = asynq.NewInspectorFromRedisClient(b.rdb)
	b.proxy = testbed.NewProxy(t, b.redis.Addr)

	// As in the deployable, apart from the address.
	through := b.redis
	through.Addr = b.proxy.Addr
	var log *slog.Logger
	b.log, log = testbed.NewLog(t)
	rdb := redisconn.New(through, redisconn.Prompt, log)
	options := api.Options{
		Jobs: jobs.New(rdb, registry, log), Database: database{},
		Dashboard: redisconn.ConnOpt{Options: through, Limits: redisconn.Prompt, Log: log}, DashboardReadOnly: true, Metrics: prometheus.NewRegistry(), Log: log,
	}
	for _, f := range adjust {
		f(&options)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "http://" + listener.Addr().String()
	server := api.New(options)
	b.server = server
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		stop()
		if err := errors.Join(<-served, server.Close(), rdb.Close()); err != nil {
			t.Errorf("ending the API: %v", err)
		}
	})
	return b
}

// measureLateness measures how late a timer is in this process, until the test ends.
func (b *testBundle) measureLateness(t testing.TB) {
	const interval = 20 * time.Millisecond
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			began := time.Now()
			select {
			case <-time.After(interval):
				b.late.Store(max(b.late.Load(), int64(time.Since(began)-interval)))
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		running.Wait()
	})
}

// limit returns how long an answer may take that is promised within a time. Client and server wait for a processor
// several times for each answer, so a busy machine adds several times what it adds to a timer.
func (b *testBundle) limit(promised time.Duration) time.Duration {
	return promised + 10*time.Duration(b.late.Load())
}

// def returns the definition of a job type.
func (b *testBundle) def(t *testing.T, name string) tasks.Definition {
	t.Helper()
	def, ok := b.jobs.Registry().Lookup(name)
	if !ok {
		t.Fatalf("no job type %q", name)
	}
	return def
}

// answer is an HTTP response that was read to its end.
type answer struct {
	status int
	header http.Header
	text   string
	took   time.Duration
}

// json returns the body as what encoding/json makes of it.
func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.text), &v); err != nil {
		t.Fatalf("the answer is no JSON object (%v): %d %s", err, a.status, a.text)
	}
	return v
}

// request sends one request. A body has the Content-Type of JSON unless the headers, names and values in turn, have another
// one.
func (b *testBundle) request(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	a, err := b.try(t.Context(), method, path, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// try is request for goroutines, which must not end the test. An exchange that does not agree with the description of the
// API is an error.
func (b *testBundle) try(ctx context.Context, method, path, body string, headers ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, b.url+path, reader)
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	start := time.Now()
	response, err := b.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // it was read
	text, err := io.ReadAll(response.Body)
	a := answer{response.StatusCode, response.Header, string(text), time.Since(start)}
	if err != nil {
		return a, err
	}
	if b.undescribed {
		return a, nil
	}
	return a, describedAPI().verify(exchange{method, path, body, a})
}

func (b *testBundle) get(t *testing.T, path string) answer {
	t.Helper()
	return b.request(t, http.MethodGet, path, "")
}

func (b *testBundle) post(t *testing.T, path, body string) answer {
	t.Helper()
	return b.request(t, http.MethodPost, path, body)
}

// triggered has the fields of a trigger's answer that the tests check.
type triggered struct {
	Success bool
	Message string
	Data    struct {
		JobID     string
		Coalesced bool
	}
}

// trigger posts a trigger that must be accepted.
func (b *testBundle) trigger(t *testing.T, job, body string) triggered {
	t.Helper()
	var r triggered
	b.ok(t, b.post(t, "/jobs/trigger/"+job, body), &r)
	if !r.Success || r.Data.JobID == "" {
		t.Fatalf("trigger %s %s: %+v", job, body, r)
	}
	return r
}

type counts struct{ Active, Waiting, Completed, Failed, Delayed int }

// status has the fields of the status that the tests check.
type status struct {
	RepeatableJobs []struct {
		Name, Key string
		Every     *int64
		Next      int64
	}
	Counts     counts
	Paused     bool
	ActiveJobs []struct {
		ID       string
		Data     json.RawMessage
		Progress int
	}
}

// status asks for the status, with a query such as "?job=all".
func (b *testBundle) status(t *testing.T, query string) status {
	t.Helper()
	var r struct{ Data status }
	b.ok(t, b.get(t, "/jobs/status"+query), &r)
	return r.Data
}

// ok decodes an answer that must be a 200.
func (b *testBundle) ok(t *testing.T, a answer, v any) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.text)
	}
	if err := json.Unmarshal([]byte(a.text), v); err != nil {
		t.Fatalf("%v: %s", err, a.text)
	}
}

// attempt is an attempt of a run that the test ends.
type attempt struct {
	*jobtype.Attempt
	end chan error
}

// finish ends the attempt; nil completes the run.
func (a *attempt) finish(err error) { a.end <- err }

// startWorker starts a worker whose runs are handed to the test.
func (b *testBundle) startWorker(t *testing.T) <-chan *attempt {
	t.Helper()
	began, handlers := b.handOver()
	b.startWorkerOf(t, handlers)
	return began
}

// handOver returns handlers that hand their attempts to the test.
func (b *testBundle) handOver() (<-chan *attempt, map[string]jobtype.Handler) {
	began := make(chan *attempt, 100)
	process := func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		a := &attempt{run, make(chan error, 1)}
		began <- a
		select {
		case err := <-a.end:
			return map[string]bool{"success": err == nil}, err
		case <-run.Stop:
			return nil, errors.New("stopped")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	handlers := make(map[string]jobtype.Handler)
	for _, name := range b.jobs.Registry().Names() {
		handlers[name] = process
	}
	return began, handlers
}

// startWorkerOf starts a worker, which ends with stop or with the test.
func (b *testBundle) startWorkerOf(t *testing.T, handlers map[string]jobtype.Handler) (stop func()) {
	t.Helper()
	w, err := worker.New(b.jobs, handlers, worker.Options{
		Concurrency: 3, Connect: func(hooks ...redis.Hook) redis.UniversalClient {
			return redisconn.New(b.redis, redisconn.Worker, slog.New(slog.DiscardHandler), hooks...)
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return background(t, w.Run)
}

// startScheduler starts a scheduler, and returns when its schedules are live. It marks the next ticks as handled, so that
// none comes in between.
func (b *testBundle) startScheduler(t *testing.T) {
	t.Helper()
	for _, def := range b.jobs.Registry().All() {
		if !def.Schedule.Enabled() {
			continue
		}
		if err := b.jobs.FirstTick(t.Context(), def, def.Schedule.Next(time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	s := scheduler.New(b.jobs, redisconn.ConnOpt{Options: b.redis, Limits: redisconn.Retrying, Log: log}, scheduler.Options{}, log)
	background(t, func(ctx context.Context) {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	testbed.Eventually(t, "the schedule to be live", func() bool {
		schedules, err := b.jobs.Schedules(t.Context(), time.Now())
		return err == nil && len(schedules) > 0
	})
}

// background runs something until the test ends.
func background(t *testing.T, run func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// next returns the attempt that begins next.
func next(t *testing.T, began <-chan *attempt) *attempt {
	t.Helper()
	return testbed.Receive(t, "a run to begin", began)
}

// none fails the test when a run begins within a time that is much longer than an idle worker needs.
func none(t *testing.T, began <-chan *attempt) {
	t.Helper()
	select {
	case a := <-began:
		t.Errorf("%s began", a.ID)
	case <-time.After(300 * time.Millisecond):
	}
}

// dump returns everything that is in the test's Redis database.
func (b *testBundle) dump(t *testing.T) map[string]string {
	t.Helper()
	keys, err := b.rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	contents := make(map[string]string)
	for _, key := range keys {
		if strings.HasSuffix(key, ":writable") { // GET /health and GET /metrics write it, to see whether they can
			continue
		}
		if contents[key], err = b.content(t, key); err != nil {
			t.Fatalf("dumping %s: %v", key, err)
		}
	}
	return contents
}

// content returns the content of a key as text. miniredis has Redis' DUMP for strings only.
func (b *testBundle) content(t *testing.T, key string) (string, error) {
	kind, err := b.rdb.Type(t.Context(), key).Result()
	if err != nil {
		return "", err
	}
	var value any
	switch kind {
	case "string":
		value, err = b.rdb.Get(t.Context(), key).Result()
	case "list":
		value, err = b.rdb.LRange(t.Context(), key, 0, -1).Result()
	case "set":
		var members []string
		members, err = b.rdb.SMembers(t.Context(), key).Result()
		slices.Sort(members)
		value = members
	case "zset":
		value, err = b.rdb.ZRangeWithScores(t.Context(), key, 0, -1).Result()
	case "hash":
		value, err = b.rdb.HGetAll(t.Context(), key).Result() // printed in the order of its fields
	default:
		err = fmt.Errorf("this test cannot read a %s", kind)
	}
	return fmt.Sprintf("%s %#v", kind, value), err
}

// changes names the keys that differ between two dumps.
func changes(before, after map[string]string) []string {
	var changed []string
	for key, value := range before {
		if now, there := after[key]; !there {
			changed = append(changed, fmt.Sprintf("%s is gone", key))
		} else if now != value {
			changed = append(changed, fmt.Sprintf("%s has changed", key))
		}
	}
	for key := range after {
		if _, there := before[key]; !there {
			changed = append(changed, fmt.Sprintf("%s is new", key))
		}
	}
	return changed
}
