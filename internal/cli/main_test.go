package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/cli"
)

// update rewrites the golden files with the present output.
var update = flag.Bool("update", false, "rewrite the golden files")

// now is the clock of the golden tests.
var now = time.Date(2026, 11, 24, 4, 50, 30, 0, time.UTC)

// binary is codexctl as TestMain has built it.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	flag.Parse()
	time.Local = time.UTC
	folder, err := os.MkdirTemp("", "codexctl-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	// The settings of the user, or of another test, must not count.
	for _, name := range []string{"CODEX_SERVER", "CODEX_API_KEY", "XDG_CONFIG_HOME"} {
		_ = os.Unsetenv(name)
	}
	goCache, _ := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	caches := strings.Fields(string(goCache))
	_ = os.Setenv("HOME", folder)
	binary = filepath.Join(folder, "codexctl")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/codexctl")
	if len(caches) == 2 {
		build.Env = append(os.Environ(), "GOCACHE="+caches[0], "GOMODCACHE="+caches[1])
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building codexctl: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// fake is a server that speaks the API.
type fake struct {
	*httptest.Server
	mu sync.Mutex
	// routes has a handler for each method and path, with the query if there is one.
	routes   map[string]http.HandlerFunc
	requests []string
	keys     []string
}

// newFake starts a server that knows no route yet.
func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{routes: make(map[string]http.HandlerFunc)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body)) // for the handler
	route := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	handler := f.routes[route]
	f.requests = append(f.requests, strings.TrimSpace(route+" "+string(body)))
	f.keys = append(f.keys, r.Header.Get("Authorization"))
	f.mu.Unlock()
	if handler == nil {
		handler = answer(404, `{"success":false,"message":"there is nothing at \"`+r.URL.Path+`\""}`)
	}
	handler(w, r)
}

// seen returns the requests so far.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// on adds a route that always gives the same answer.
func (f *fake) on(route string, status int, body string) { f.handle(route, answer(status, body)) }

func (f *fake) handle(route string, handler http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routes[route] = handler
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// printed is the result of a call of codexctl.
type printed struct {
	status   int
	out, err string
}

// run runs codexctl in this process, at a server, with a clock that stands still.
func run(t *testing.T, server string, args ...string) printed {
	t.Helper()
	return runUntil(t.Context(), server, args...)
}

func runUntil(ctx context.Context, server string, args ...string) printed {
	var out, errOut bytes.Buffer
	if server != "" {
		args = append([]string{"--server", server}, args...)
	}
	status := cli.Run(ctx, cli.Program{
		Version: "v1.2.3", Out: &out, Err: &errOut, Now: func() time.Time { return now }, Poll: time.Millisecond, RetryFor: time.Second,
	}, args)
	return printed{status, out.String(), errOut.String()}
}

// golden compares a text with the file of the name in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("printed was\n%s\nwant, from %s,\n%s", got, path, want)
	}
}
