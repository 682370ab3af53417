package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	// waitLimit is how long a test waits for what must happen, on a busy machine.
	waitLimit = testbed.WaitLimit
	// stopLimit is how long a process may take to end after a SIGTERM.
	stopLimit = 10 * time.Second
)

// binDir is where TestMain has built the binaries.
var binDir string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	redis.SetLogger(telemetry.NewRedisLogger(slog.New(slog.DiscardHandler))) // the tests take Redis away
	var err error
	if binDir, err = os.MkdirTemp("", "codex-jobs-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(binDir) }()
	arguments := append([]string{"build", "-o", binDir + string(filepath.Separator)}, raceFlags...)
	build := exec.Command("go", append(arguments, "./cmd/...")...)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binaries: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// command prepares one of the binaries, with these environment variables and no others, in an empty directory.
func command(t *testing.T, name string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, name), args...)
	cmd.Dir = t.TempDir()
	// The race detector waits a second before each exit otherwise.
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=1", "HOME=" + cmd.Dir, "ADMIN_PORT=off"}, env...)
	return cmd
}

// attrs are fields of a line of the log. JSON's numbers are float64.
type attrs = procs.Attrs

// process is a running binary.
type process struct {
	*procs.Process

	terminated time.Time // when it was asked to stop
}

// start runs a binary until the test ends, at the latest.
func start(t *testing.T, name string, env ...string) *process {
	t.Helper()
	started, err := procs.Start(command(t, name, env), procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Process: started}
	t.Cleanup(func() {
		if err := p.Failure(); err != nil {
			t.Error(err)
		}
		p.Kill()
		if odd := p.Log().Odd(); len(odd) > 0 { // a panic, or what the race detector has found
			t.Errorf("%s wrote lines that are not JSON:\n%s", p, strings.Join(odd[:min(len(odd), procs.TailLines)], "\n"))
		}
		if t.Failed() {
			p.keepLog(t)
		}
	})
	return p
}

// The end of a log that a failed test shows. More would hide what has failed.
const (
	shownLines = 2
	shownWidth = 160
)

// keepLog writes the log into a file that stays, and shows its end.
func (p *process) keepLog(t *testing.T) {
	file, err := os.CreateTemp("", "codex-jobs-e2e-"+p.Name()+"-*.log")
	if err != nil {
		t.Log(err)
		return
	}
	_, err = file.WriteString(p.Log().String())
	if err = errors.Join(err, file.Close()); err != nil {
		t.Log(err)
	}
	var end strings.Builder
	for line := range strings.Lines(p.Log().Tail(shownLines)) {
		line = strings.TrimSpace(line)
		end.WriteString("\n" + line[:min(len(line), shownWidth)])
	}
	t.Logf("the log of %s is %s and ends with%s", p, file.Name(), end.String())
}

// log returns the lines with the message and all of the attributes.
func (p *process) log(msg string, want attrs) []attrs {
	return fields(p.Log().Find(procs.Match{Msg: msg, Attrs: want}))
}

func fields(entries []procs.Entry) []attrs {
	var all []attrs
	for _, e := range entries {
		all = append(all, e.Attrs)
	}
	return all
}

// waitForLog returns the first line with the message and all of the attributes. It fails the test when the process ends
// without one.
func (p *process) waitForLog(t *testing.T, msg string, want attrs) attrs {
	t.Helper()
	return p.waitForLogs(t, 1, msg, want)[0]
}

// waitForLogs waits until there are at least n such lines, and returns them.
func (p *process) waitForLogs(t *testing.T, n int, msg string, want attrs) []attrs {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	found, err := p.Await(ctx, n, procs.Match{Msg: msg, Attrs: want})
	if err != nil {
		t.Fatalf("%d of %d lines: %v", len(found), n, err)
	}
	return fields(found)
}

// mustNotLog fails the test when there is a line with the message.
func (p *process) mustNotLog(t *testing.T, msg string) {
	t.Helper()
	if found := p.log(msg, nil); len(found) > 0 {
		t.Errorf("%s logged: %v", p, found)
	}
}

// terminate asks the process to stop.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if p.Ended() {
		t.Fatalf("%s has ended by itself: %s", p, p.Status())
	}
	p.terminated = time.Now()
	if err := p.Terminate(); err != nil {
		t.Fatal(err)
	}
}

// stop asks the process to stop and expects that it does, in time and with exit status 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.terminate(t)
	p.waitForExit(t)
}

func (p *process) waitForExit(t *testing.T) {
	t.Helper()
	timer := time.NewTimer(time.Until(p.terminated.Add(stopLimit)))
	defer timer.Stop()
	select {
	case <-p.Done():
		if testing.Verbose() {
			t.Logf("%s ended after %s", p, time.Since(p.terminated).Round(time.Millisecond))
		}
	case <-timer.C:
		t.Fatalf("%s did not end within %s", p, stopLimit)
	}
	if p.ExitCode() != 0 {
		t.Errorf("%s ended with %s, want exit status 0", p, p.Status())
	}
}
