package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/ferret"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// TestMain makes the test binary stand for the demo and for the programs that it starts, by the name that it is
// called by.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "demo":
		os.Exit(run(os.Args[1:], newConsole(os.Stdout), os.Stderr))
	case "api", "scheduler", "worker":
		os.Exit(pretend(name))
	}
	os.Exit(m.Run())
}

// pretend stands for a process of the product. PRETEND_SCHEDULER=dies makes the scheduler end by itself with status 9.
func pretend(name string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Printf("%s is process %d, interval %s, users to %s with %q signed by %q, issues to %s\n", name, os.Getpid(), os.Getenv("USER_SYNC_INTERVAL"),
		os.Getenv("USER_SYNC_URL"), os.Getenv("USER_SYNC_FIELDS"), os.Getenv("USER_SYNC_SECRET"), os.Getenv("ISSUE_SYNC_URL"))
	if name == "api" {
		var asked atomic.Int64
		server := http.Server{
			Addr: net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) < 3 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				fmt.Fprintf(w, `{"status":"OK","jobs":{"initialized":%v}}`, asked.Load() >= 3)
			}),
		}
		defer server.Close()
		go func() { _ = server.ListenAndServe() }()
	}
	if name == "worker" {
		fmt.Println(`msg="Recovered run from a dead worker"`)
	}
	if name == "scheduler" && os.Getenv("PRETEND_SCHEDULER") == "dies" {
		fmt.Fprint(os.Stderr, "no ticks today") // without an end of the line
		return 9
	}
	select {
	case <-signals:
		fmt.Printf("%s ends in good order\n", name)
		return 0
	case <-time.After(time.Minute):
		return 8
	}
}

// testBundle is a demo with the programs and servers that it needs.
type testBundle struct {
	bin      string
	port     string
	environ  []string
	database *mongo.Database
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	b := &testBundle{bin: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"demo", "api", "scheduler", "worker"} {
		if err := os.Symlink(self, filepath.Join(b.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	server, err := ferret.Start(t.Context(), t.TempDir(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop(5 * time.Second) })
	client, err := mongo.Connect(options.Client().ApplyURI(server.URI()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	b.database = client.Database("demo")

	b.port = testbed.FreePort(t)
	b.environ = []string{"MONGODB_URI=" + server.URI(), "MONGODB_DATABASE=demo", "PORT=" + b.port}
	return b
}

func (b *testBundle) command() *exec.Cmd {
	cmd := exec.Command(filepath.Join(b.bin, "demo"), "-bin", b.bin)
	cmd.Env = b.environ
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// running is a demo that runs.
type running struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	output []string
	stderr strings.Builder // only for after end
}

// start starts the demo and reads until a line contains text.
func (b *testBundle) start(t *testing.T, text string) *running {
	t.Helper()
	r := &running{cmd: b.command()}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = in, &r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // still runs only if the test failed
		_ = r.cmd.Wait()
		_ = out.Close()
	})
	if err := out.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r.lines = bufio.NewScanner(out)
	for r.lines.Scan() {
		r.output = append(r.output, r.lines.Text())
		if strings.Contains(r.lines.Text(), text) {
			return r
		}
	}
	t.Fatalf("the demo never said %q, but:\n%s", text, strings.Join(r.output, "\n"))
	return nil
}

// allPIDs reads until all four processes have introduced themselves, and returns their ids.
func (r *running) allPIDs(t *testing.T) []int {
	t.Helper()
	for len(r.pids(t)) < len(processes) && r.lines.Scan() {
		r.output = append(r.output, r.lines.Text())
	}
	return r.pids(t)
}

// end reads the rest, waits for the demo to end and returns its exit status.
func (r *running) end(t *testing.T) int {
	t.Helper()
	for r.lines.Scan() {
		r.output = append(r.output, r.lines.Text())
	}
	var exit *exec.ExitError
	if err := r.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("waiting for the demo: %v", err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// pids returns the ids of the processes that have introduced themselves.
func (r *running) pids(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, line := range r.output {
		var name string
		var pid int
		_, text, _ := strings.Cut(line, "| ")
		if n, _ := fmt.Sscanf(text, "%s is process %d,", &name, &pid); n == 2 {
			pids = append(pids, pid)
		}
	}
	return pids
}

func checkGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("process %d is still there", pid)
				break
			}
		}
	}
}

// zombie reports whether a process has ended but was not reaped, which its new parent must do.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestRunsUntilSignalled(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			demo := b.start(t, "Ctrl-C ends all of it")
			demo.allPIDs(t) // by then each handles signals
			for name, want := range map[string]int64{"users": userCount, "projects": projectCount, "issues": issueCount} {
				if n, err := b.database.Collection(name).CountDocuments(t.Context(), bson.D{}); err != nil || n != want {
					t.Errorf("%d %s were loaded, want %d; error %v", n, name, want, err)
				}
			}
			if err := demo.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := demo.end(t); code != 0 {
				t.Errorf("exit status %d, want 0; stderr: %s", code, &demo.stderr)
			}
			output := strings.Join(demo.output, "\n")
			for _, want := range []string{
				"demo: loaded 2000 users, 40 projects and 60 issues",
				"Console    http://127.0.0.1:" + b.port + "/\n",
				"http://127.0.0.1:" + b.port + "/health",
				"http://127.0.0.1:" + b.port + "/dashboard",
				`curl -X POST http://127.0.0.1:` + b.port + `/jobs/trigger/user-sync -H 'Content-Type: application/json' -d '{"syncType":"full"}'`,
				"api      | api is process",
				"scheduler| scheduler is process",
				"worker-1 | worker is process",
				"worker-2 | worker is process",
				"interval 15s",
				"api      | api ends in good order",
				"scheduler| scheduler ends in good order",
				"worker-1 | worker ends in good order",
				"worker-2 | worker ends in good order",
			} {
				if !strings.Contains(output, want) {
					t.Errorf("no %q in the output", want)
				}
			}
			asks := regexp.MustCompile(`users to (http://127\.0\.0\.1:\d+)/user-sync with "username" signed by "whsec_\S+", issues to (http://127\.0\.0\.1:\d+)/issue-sync\n`)
			if m := asks.FindStringSubmatch(output); m == nil || m[1] != m[2] {
				t.Error("the syncs do not ask the demo's endpoint")
			}
			if strings.Contains(output, "\x1b") {
				t.Error("the output is coloured, though it goes to no terminal")
			}
			if t.Failed() {
				t.Logf("output:\n%s", output)
			}
			pids := demo.pids(t)
			if len(pids) != len(processes) {
				t.Errorf("%d processes were started, want 4", len(pids))
			}
			checkGone(t, pids)
		})
	}
}

func TestSettingsOfTheEnvironmentStay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.database.Collection("users").InsertOne(t.Context(), bson.D{{Key: "_id", Value: "mine"}}); err != nil {
		t.Fatal(err)
	}
	b.environ = append(b.environ, "USER_SYNC_INTERVAL=30s", "USER_SYNC_URL=http://localhost:3000/mine", "HOST=0.0.0.0")
	demo := b.start(t, "Ctrl-C ends all of it")
	if err := demo.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := demo.end(t); code != 0 {
		t.Errorf("exit status %d, want 0; stderr: %s", code, &demo.stderr)
	}
	output := strings.Join(demo.output, "\n")
	if !strings.Contains(output, "interval 30s") {
		t.Errorf("USER_SYNC_INTERVAL was not passed on:\n%s", output)
	}
	if !regexp.MustCompile(`users to http://localhost:3000/mine with "" signed by "", issues to http://127\.0\.0\.1:`).MatchString(output) {
		t.Errorf("the users do not go to USER_SYNC_URL alone:\n%s", output)
	}
	if !strings.Contains(output, "http://127.0.0.1:"+b.port+"/health") {
		t.Errorf("with HOST=0.0.0.0 the URLs lead nowhere:\n%s", output)
	}
	if n, err := b.database.Collection("users").CountDocuments(t.Context(), bson.D{}); err != nil || n != 1 {
		t.Errorf("the collection that had a user has %d now, error %v", n, err)
	}
}

func TestDeadChildEndsTheOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.environ = append(b.environ, "PRETEND_SCHEDULER=dies")
	demo := b.start(t, "scheduler| no ticks today")
	if code := demo.end(t); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	if want := "demo: scheduler ended by itself: exit status 9\n"; demo.stderr.String() != want {
		t.Errorf("stderr is %q, want %q", demo.stderr.String(), want)
	}
	checkGone(t, demo.pids(t))
}

// A worker that is killed comes back, and the others go on.
func TestKilledWorkerIsStartedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	demo := b.start(t, "kill -9 ")
	banner := demo.output[len(demo.output)-1]
	var first, second int
	if n, err := fmt.Sscanf(strings.TrimSpace(banner), "kill -9 %d     or %d:", &first, &second); n != 2 {
		t.Fatalf("the banner names no processes (%v): %s", err, banner)
	}
	pids := demo.allPIDs(t)
	if !slices.Contains(pids, first) || !slices.Contains(pids, second) {
		t.Fatalf("the banner names %d and %d, the processes are %v", first, second, pids)
	}
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for len(demo.pids(t)) < len(processes)+1 && demo.lines.Scan() {
		demo.output = append(demo.output, demo.lines.Text())
	}
	if err := demo.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := demo.end(t); code != 0 {
		t.Errorf("exit status %d, want 0; stderr: %s", code, &demo.stderr)
	}
	output := strings.Join(demo.output, "\n")
	for _, want := range []string{
		fmt.Sprintf("demo: worker-2 (process %d) has ended: signal: killed. If it had a run, that is put back within 75 s", second),
		"demo: worker-2 runs again, kill -9 ", "demo: worker-2 goes on with the run of the worker that was killed",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in the output:\n%s", want, output)
		}
	}
	checkGone(t, demo.pids(t))
}

func TestChildrenDoNotOutliveAKilledDemo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	demo := b.start(t, "Ctrl-C ends all of it")
	pids := demo.allPIDs(t)
	if err := demo.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = demo.end(t)
	if len(pids) != 4 {
		t.Errorf("%d processes were started, want 4", len(pids))
	}
	checkGone(t, pids)
}

func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, b *testBundle)
		says    string
	}{
		{
			"port in use",
			func(t *testing.T, b *testBundle) {
				l, err := net.Listen("tcp", "127.0.0.1:"+b.port)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = l.Close() })
			},
			"is already in use on 127.0.0.1",
		},
		{
			"program missing",
			func(t *testing.T, b *testBundle) {
				if err := os.Remove(filepath.Join(b.bin, "worker")); err != nil {
					t.Fatal(err)
				}
			},
			"worker: no such file",
		},
		{
			"no MongoDB",
			func(_ *testing.T, b *testBundle) { b.environ = b.environ[1:] },
			"run the demo with devstack",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			tt.prepare(t, b)
			var stdout, stderr strings.Builder
			cmd := b.command()
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("the demo ended with %v, want exit status 1", err)
			}
			if !strings.Contains(stderr.String(), tt.says) {
				t.Errorf("stderr is %q, want it to say %q", stderr.String(), tt.says)
			}
			if stdout.Len() > 0 {
				t.Errorf("something was started: %s", stdout.String())
			}
			if names, err := b.database.ListCollectionNames(t.Context(), bson.D{}); err != nil || len(names) > 0 {
				t.Errorf("collections %q were loaded, error %v", names, err)
			}
		})
	}
}

func TestSyncsAreTheProducts(t *testing.T) {
	t.Parallel()
	if len(syncs) != len(codex.Syncs) {
		t.Fatalf("the demo knows %d syncs, the product %d", len(syncs), len(codex.Syncs))
	}
	for i, sync := range codex.Syncs {
		if got := syncs[i]; got.name != sync.Name || got.prefix != config.SettingPrefix(sync.Name) || got.nameField != sync.NameField {
			t.Errorf("the demo knows %+v, the product %s with %s, whose settings begin with %s", got, sync.Name, sync.NameField, config.SettingPrefix(sync.Name))
		}
	}
}

func TestUntilHealthy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer string
		status       int
		err          string
	}{
		{"ready", `{"jobs":{"initialized":true}}`, 200, ""},
		{"ready but degraded", `{"status":"DEGRADED","jobs":{"initialized":true}}`, 503, ""},
		{"not ready", `{"jobs":{"initialized":false}}`, 200, "not initialised"},
		{"something else", `<html>`, 404, "404 Not Found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.answer)
			}))
			defer server.Close()
			err := untilHealthy(t.Context(), server.URL, time.Second)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// lineCounter counts lines. Each must come in a write of its own, one write at a time.
type lineCounter struct {
	t     *testing.T
	busy  atomic.Bool
	lines map[string]int
}

func (c *lineCounter) Write(p []byte) (int, error) {
	if !c.busy.CompareAndSwap(false, true) {
		c.t.Error("two lines were written at the same time")
		return len(p), nil
	}
	defer c.busy.Store(false)
	runtime.Gosched() // gives another writer its chance
	if strings.Count(string(p), "\n") != 1 || p[len(p)-1] != '\n' {
		c.t.Errorf("%q is not one line", p)
	}
	c.lines[string(p)]++
	return len(p), nil
}

func TestLinesAreNotInterleaved(t *testing.T) {
	t.Parallel()
	counter := &lineCounter{t: t, lines: map[string]int{}}
	out := &console{out: counter}
	const rounds = 200
	var writers sync.WaitGroup
	for i, name := range []string{"api", "scheduler", "worker-1"} {
		writers.Go(func() {
			s := &procs.Log{Each: out.lines(name, i)}
			for range rounds {
				for _, piece := range []string{"he", "llo\nwor", "ld", "\n"} {
					if n, err := s.Write([]byte(piece)); n != len(piece) || err != nil {
						t.Errorf("wrote %d bytes of %q, error %v", n, piece, err)
					}
				}
			}
		})
	}
	writers.Wait()
	for _, prefix := range []string{"api      | ", "scheduler| ", "worker-1 | "} {
		for _, text := range []string{"hello\n", "world\n"} {
			if n := counter.lines[prefix+text]; n != rounds {
				t.Errorf("line %q came %d times, want %d", prefix+text, n, rounds)
			}
		}
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	for colour, want := range map[bool]string{false: "worker-1 | one\n", true: "\x1b[33mworker-1 | \x1b[0mone\n"} {
		var out strings.Builder
		(&console{out: &out, colour: colour}).lines("worker-1", 1)(procs.Entry{Text: "one"})
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, doc := range records("issue", issueCount) {
		text, err := json.Marshal(doc[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(text)] = true
	}
	if len(seen) != issueCount {
		t.Errorf("%d records have %d identifiers", issueCount, len(seen))
	}
}
