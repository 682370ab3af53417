package e2e_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// collector takes traces, as an OpenTelemetry collector does.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	spans []span
	wrong []string
}

// span has the fields of a span that the tests check.
type span struct {
	service, name     string
	trace, id, parent string
	kind              tracepb.Span_SpanKind
	attributes        map[string]string
	begun, ended      uint64
	failure           string
	authorized        bool
}

const collectorKey = "a secret, with a comma"

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(c.take))
	t.Cleanup(c.Close)
	return c
}

// env makes a process send its traces to the collector.
func (c *collector) env() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL + "/otlp/",
		"OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20secret%2C%20with%20a%20comma,x-other=1",
		"OTEL_BSP_SCHEDULE_DELAY=100", // ms, OpenTelemetry's own setting
	}
}

func (c *collector) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var data tracepb.TracesData
	if err == nil {
		err = proto.Unmarshal(body, &data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/otlp/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.wrong = append(c.wrong, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, of := range data.ResourceSpans {
		service := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				got := span{
					service: service, name: s.Name, kind: s.Kind, begun: s.StartTimeUnixNano, ended: s.EndTimeUnixNano,
					trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
					attributes: make(map[string]string), authorized: r.Header.Get("X-Key") == collectorKey,
				}
				if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					got.failure = s.Status.Message
				}
				for _, a := range s.Attributes {
					got.attributes[a.Key] = a.Value.GetStringValue()
				}
				c.spans = append(c.spans, got)
			}
		}
	}
}

// find returns the spans of a trace, or of all, for which ok is true.
func (c *collector) find(trace string, ok func(span) bool) (found []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if (trace == "" || s.trace == trace) && ok(s) {
			found = append(found, s)
		}
	}
	return found
}

func named(name string) func(span) bool { return func(s span) bool { return s.name == name } }

// One trace leads from a request, or from its client, through the task to the run, its ranges on both workers, their batches
// and their commands. Another one leads from each tick.
func TestTraces(t *testing.T) {
	t.Parallel()
	s := setup(t)
	c := newCollector(t)
	s.env = append(append(s.env, c.env()...), "SYNC_RANGE_SIZE=30", "SYNC_BATCH_SIZE=10", "SYNC_WRITERS=1", "USER_SYNC_INTERVAL=2s", "USER_SYNC_FRESHNESS=1h")
	const users = 120
	s.insert(t, messyUsers(users))
	asking := make(chan string, 100) // the traceparents of the requests to the endpoint
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asking <- r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer endpoint.Close()
	s.env = append(s.env, "USER_SYNC_URL="+endpoint.URL)
	processes := []*process{s.startReady(t, "api"), s.startReady(t, "worker"), s.startReady(t, "worker")}
	api := processes[0]

	const brought, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.api+"/jobs/trigger/user-sync", strings.NewReader(`{"syncType":"full"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+brought+"-"+parent+"-01")
	request.Header.Set("Tracestate", "vendor="+strings.Repeat("x", 200))
	send(t, request)
	triggered := api.waitForLog(t, "Job triggered", attrs{"traceId": brought})
	id := parseID(t, triggered["jobId"].(string))
	if _, ok := triggered["requestId"].(string); !ok {
		t.Errorf("a request's line without its ID: %v", triggered)
	}
	wantComplete(t, s.result(t, id), users)
	info, err := s.inspector.GetTaskInfo(userSync, id.String())
	if _, more := info.Headers["tracestate"]; err != nil || more || !strings.Contains(info.Headers["traceparent"], brought) {
		t.Errorf("the task has the headers %v (%v), want the trace and no vendor's", info.Headers, err)
	}

	// Spans arrive when they have ended: the run's last, and the last batch of spans a little later.
	const ranges, batches = users / 30, users / 10
	testbed.Eventually(t, "the whole trace to arrive", func() bool {
		return len(c.find(brought, named("run user-sync"))) == 1 && len(c.find(brought, named("range of user-sync"))) == ranges &&
			len(c.find(brought, named("batch"))) == batches && len(c.find(brought, named("POST /jobs/trigger/:job"))) == 1
	})
	of := attrs{"jobId": id.String(), "traceId": brought}
	asked := c.find(brought, named("POST /jobs/trigger/:job"))[0]
	run := c.find(brought, named("run user-sync"))[0]
	for name, ok := range map[string]bool{
		"the request is part of what has asked": asked.parent == parent && asked.kind == tracepb.Span_SPAN_KIND_SERVER && asked.service == "codex-jobs-api",
		"the request names the job":             asked.attributes["codex.job.id"] == id.String() && asked.attributes["codex.job.type"] == userSync,
		"the run is the request's":              run.parent == asked.id && run.kind == tracepb.Span_SPAN_KIND_CONSUMER && run.service == "codex-jobs-worker",
		"the run names the job":                 run.attributes["codex.job.id"] == id.String(),
		"the run has a length":                  run.ended > run.begun,
		"the headers were sent":                 asked.authorized,
	} {
		if !ok {
			t.Errorf("not so: %s\n%+v\n%+v", name, asked, run)
		}
	}
	var ofRanges []string
	for _, r := range c.find(brought, named("range of user-sync")) {
		if r.parent != run.id {
			t.Errorf("a range that is not the run's: %+v", r)
		}
		ofRanges = append(ofRanges, r.id)
	}
	var ofBatches []string
	for _, b := range c.find(brought, named("batch")) {
		if !slices.Contains(ofRanges, b.parent) {
			t.Errorf("a batch that is not a range's: %+v", b)
		}
		ofBatches = append(ofBatches, b.id)
	}
	for range batches {
		header := strings.Split(testbed.Receive(t, "a request to the endpoint", asking), "-")
		if len(header) != 4 || header[1] != brought || !slices.Contains(ofBatches, header[2]) {
			t.Errorf("a request to the endpoint that is not a batch's: %v", header)
		}
	}
	commands := c.find(brought, func(s span) bool { return s.attributes["db.system.name"] == "mongodb" })
	updates := 0
	for _, command := range commands {
		if command.attributes["db.collection.name"] != "users" || command.kind != tracepb.Span_SPAN_KIND_CLIENT {
			t.Errorf("a command: %+v", command)
		}
		if command.name == "update users" {
			updates++
			if !slices.Contains(ofBatches, command.parent) {
				t.Errorf("an update that is not a batch's: %+v", command)
			}
		} else if command.parent != run.id && !slices.Contains(ofRanges, command.parent) {
			t.Errorf("a command that is neither the run's nor a range's: %+v", command)
		}
	}
	if updates < batches || updates == len(commands) {
		t.Errorf("%d commands, of which %d are updates, want one for each of %d batches, and those that read", len(commands), updates, batches)
	}
	worked := 0
	for _, w := range processes[1:] {
		worked += len(w.log(runStarted, of)) + len(w.log("Range completed", of))
	}
	if worked != 1+ranges {
		t.Errorf("%d lines of the log carry the trace, want %d", worked, 1+ranges)
	}

	// The requests of monitors are not traced.
	s.health(t)
	if found := c.find("", func(s span) bool { return strings.Contains(s.name, "health") }); len(found) > 0 {
		t.Errorf("traced: %+v", found)
	}

	scheduler := s.startReady(t, "scheduler")
	tick := scheduler.waitForLog(t, "Tick enqueued", nil)
	trace, ok := tick["traceId"].(string)
	if !ok {
		t.Fatalf("a tick without a trace: %v", tick)
	}
	testbed.Eventually(t, "the trace of the tick to arrive", func() bool {
		return len(c.find(trace, named("tick user-sync"))) == 1 && len(c.find(trace, named("run user-sync"))) == 1
	})
	root, run := c.find(trace, named("tick user-sync"))[0], c.find(trace, named("run user-sync"))[0]
	if root.parent != "" || run.parent != root.id || run.attributes["codex.job.id"] != tick["jobId"] || root.service != "codex-jobs-scheduler" {
		t.Errorf("a tick's trace: %+v %+v, logged as %v", root, run, tick)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) > 0 {
		t.Errorf("the collector was sent: %v", c.wrong)
	}
}

// A collector that is not there, or hangs, changes nothing but the log, and delays no stop.
func TestTracesAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := setup(t)
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(release) })
	s.insert(t, messyUsers(10))
	const password = "of-the-collector"
	api := s.startReady(t, "api", "OTEL_EXPORTER_OTLP_ENDPOINT=http://u:"+password+"@127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY=50")
	worker := s.startReady(t, "worker", "OTEL_EXPORTER_OTLP_ENDPOINT="+hanging.URL, "OTEL_BSP_SCHEDULE_DELAY=50")
	wantComplete(t, s.result(t, s.trigger(t, `{"syncType":"full"}`)), 10)
	api.waitForLog(t, "Could not send traces, they are dropped", nil)
	for _, p := range []*process{api, worker} {
		begun := time.Now()
		p.stop(t)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s took %s to stop", p, took)
		}
		if strings.Contains(p.Log().String(), password) {
			t.Errorf("%s has logged the password:\n%s", p, p.Log().String())
		}
	}
}

// Without a collector nothing is traced: neither the task nor the log has a trace that a client sent.
func TestTracesAreOff(t *testing.T) {
	t.Parallel()
	s := setup(t)
	api := s.startReady(t, "api")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.api+"/jobs/trigger/user-sync", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	send(t, request)
	line := api.waitForLog(t, "Job triggered", nil)
	if _, ok := line["traceId"]; ok {
		t.Errorf("the log has a trace: %v", line)
	}
	info, err := s.inspector.GetTaskInfo(userSync, line["jobId"].(string))
	if _, traced := info.Headers["traceparent"]; err != nil || traced {
		t.Errorf("the task has the headers %v (%v), want no trace", info.Headers, err)
	}
}
