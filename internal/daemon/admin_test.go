package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// next waits for the next line, which must have the message, and returns one of its attributes.
func (b *testBundle) next(t *testing.T, msg, attr string) string {
	t.Helper()
	b.read++
	line := testbed.Await(t, b.log, b.read, procs.Match{})[b.read-1]
	value, ok := line.Attrs[attr].(string)
	if line.Msg() != msg || !ok {
		t.Fatalf("the next line is %s, want %q with %s", line.Text, msg, attr)
	}
	return value
}

// wantNothingElse checks that no more was logged.
func (b *testBundle) wantNothingElse(t *testing.T) {
	t.Helper()
	if all := b.log.Find(procs.Match{}); len(all) > b.read {
		t.Errorf("logged: %v", all[b.read:])
	}
}

// testBundle is a process with an admin port.
type testBundle struct {
	*Process
	client   *http.Client
	log      *testbed.Log
	read     int           // lines of the log
	stopping chan struct{} // to be closed when the process is to stop
	// end ends the admin port, as the end of the process does, and ended is closed when it has.
	end   func()
	ended chan struct{}
}

// start serves the admin port as the settings say.
func start(t *testing.T, settings config.Admin, byDefault int) *testBundle {
	t.Helper()
	log, _ := testbed.NewLog(t)
	logger := slog.New(slog.NewJSONHandler(log, nil)) // at the default level
	b := &testBundle{
		Process: &Process{Log: logger, Metrics: telemetry.NewRegistry("worker", "v1.2.3", "")},
		client:  &http.Client{Transport: new(http.Transport), Timeout: testbed.WaitLimit},
		log:     log, stopping: make(chan struct{}), ended: make(chan struct{}),
	}
	listener, err := b.listenAdmin(t.Context(), settings, byDefault)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.end = cancel
	var serving sync.WaitGroup
	serving.Go(func() {
		defer close(b.ended)
		b.serveAdmin(ctx, listener, b.stopping)
	})
	t.Cleanup(func() {
		cancel()
		b.client.CloseIdleConnections()
		serving.Wait()
	})
	return b
}

// mustEnd ends the admin port, and fails the test when that takes long.
func (b *testBundle) mustEnd(t *testing.T) {
	t.Helper()
	b.end()
	select {
	case <-b.ended:
	case <-time.After(2 * time.Second):
		t.Fatal("the admin port does not end")
	}
}

// startHere serves the admin port at any free one, and returns its address.
func startHere(t *testing.T) (b *testBundle, url string) {
	t.Helper()
	b = start(t, config.Admin{Host: "127.0.0.1"}, 0)
	return b, "http://" + b.next(t, "Admin port ready", "addr")
}

func (b *testBundle) request(t *testing.T, method, url string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := b.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestProbes(t *testing.T) {
	t.Parallel()
	b, url := startHere(t)
	want := func(path string, status int, text string) {
		t.Helper()
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			want := text
			if method == http.MethodHead {
				want = ""
			}
			if got, said := b.request(t, method, url+path); got != status || strings.TrimSpace(said) != want {
				t.Errorf("%s %s: %d %q, want %d %q", method, path, got, said, status, want)
			}
		}
	}
	const unavailable = "Redis, or MongoDB for a worker, does not answer or accepts no writes"
	want("/livez", http.StatusOK, "ok")
	want("/readyz", http.StatusServiceUnavailable, "starting")
	b.ReadyWhen(func(context.Context) error { return errors.New("redis://user:s3cret@host") })
	want("/livez", http.StatusOK, "ok")
	want("/readyz", http.StatusServiceUnavailable, unavailable)
	b.ReadyWhen(func(ctx context.Context) error { // a server that hangs
		<-ctx.Done()
		return ctx.Err()
	})
	begun := time.Now()
	want("/readyz", http.StatusServiceUnavailable, unavailable)
	if took := time.Since(begun); took > 2*2*time.Second {
		t.Errorf("two answers took %s", took)
	}
	b.ReadyWhen(func(context.Context) error { return nil })
	want("/readyz", http.StatusOK, "ok")
	close(b.stopping)
	want("/readyz", http.StatusServiceUnavailable, "stopping")
	want("/livez", http.StatusOK, "ok")
	b.mustEnd(t)
	b.wantNothingElse(t)
}

func TestMetricsOfTheProcess(t *testing.T) {
	t.Parallel()
	b, url := startHere(t)
	status, text := b.request(t, http.MethodGet, url+"/metrics")
	if status != http.StatusOK {
		t.Fatal(status, text)
	}
	metrics := telemetrytest.Parse(t, text)
	build := `codex_jobs_build_info{goversion="` + runtime.Version() + `",service="worker",version="v1.2.3"}`
	for _, series := range []string{build, "go_goroutines", "go_memstats_heap_alloc_bytes"} {
		if metrics[series] < 1 {
			t.Errorf("%s is %v", series, metrics[series])
		}
	}
	if runtime.GOOS == "linux" && metrics["process_resident_memory_bytes"] < 1<<20 {
		t.Errorf("the process has %v bytes", metrics["process_resident_memory_bytes"])
	}
}

func TestNothingElseIsServed(t *testing.T) {
	t.Parallel()
	b, url := startHere(t)
	for _, path := range []string{"/", "/livez/", "/metrics/x", "/health", "/jobs/status", "/debug/pprof/", "/LIVEZ"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if status, text := b.request(t, method, url+path); status != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, path, status, text)
			}
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "PURGE"} {
			if status, text := b.request(t, method, url+path); status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d %s", method, path, status, text)
			}
		}
	}
}

// Of several processes of a program on a host, the first has the default port. The others take free ones, and say which.
func TestDefaultPortInUse(t *testing.T) {
	t.Parallel()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	b := start(t, config.Admin{Host: "127.0.0.1"}, other.Addr().(*net.TCPAddr).Port)
	b.read++
	testbed.Await(t, b.log, 1, procs.Match{Msg: "The default admin port is in use, taking a free one"})
	addr := b.next(t, "Admin port ready", "addr")
	if status, _ := b.request(t, http.MethodGet, "http://"+addr+"/livez"); status != http.StatusOK || addr == other.Addr().String() {
		t.Errorf("/livez at %s: %d", addr, status)
	}
}

// A port that the settings name must be free.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	program := Program{Name: "worker", AdminPort: 1, Run: func(context.Context, *Process) error {
		t.Error("it runs")
		return nil
	}}
	cfg := config.Config{Admin: config.Admin{Host: "127.0.0.1", Port: other.Addr().(*net.TCPAddr).Port}, Registry: codex.Registry()}
	err = Run(t.Context(), program, cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "opening the admin port (ADMIN_HOST, ADMIN_PORT): ") {
		t.Errorf("got %v", err)
	}
}

func TestAdminPortOff(t *testing.T) {
	t.Parallel()
	b := start(t, config.Admin{Host: "127.0.0.1", Port: config.AdminOff}, 4003)
	testbed.Receive(t, "the end of what serves nothing", b.ended)
	b.wantNothingElse(t)
}

// Requests that hang, and connections that are kept, do not keep a process from ending.
func TestEndWithRequestsUnderWay(t *testing.T) {
	t.Parallel()
	b, url := startHere(t)
	b.request(t, http.MethodGet, url+"/livez") // leaves an idle connection
	asked, answer := make(chan struct{}), make(chan struct{})
	b.ReadyWhen(func(context.Context) error { // it even ignores its context
		close(asked)
		<-answer
		return nil
	})
	var client sync.WaitGroup
	client.Go(func() {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/readyz", nil)
		if err != nil {
			t.Error(err)
			return
		}
		if response, err := b.client.Do(request); err == nil {
			_ = response.Body.Close()
			t.Errorf("answered with %d", response.StatusCode)
		}
	})
	<-asked
	b.mustEnd(t)
	client.Wait()
	close(answer)
}
