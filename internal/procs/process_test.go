package procs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// waitLimit is how long a test waits for what must happen, on a busy machine.
const waitLimit = time.Minute

func shell(script string) *exec.Cmd { return exec.Command("/bin/sh", "-c", script) }

// start runs a script until the test ends.
func start(t *testing.T, script string, o procs.Options) *procs.Process {
	t.Helper()
	p, err := procs.Start(shell(script), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// await waits for a line of the process, and returns it.
func await(t *testing.T, p *procs.Process, match procs.Match) procs.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	found, err := p.Await(ctx, 1, match)
	if err != nil {
		t.Fatal(err)
	}
	return found[0]
}

func TestEndByItself(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		code   int
		status string
	}{
		{"exit 0", 0, "exit status 0"},
		{"exit 7", 7, "exit status 7"},
		{"kill -KILL $$", 137, "signal: killed"},
		{"kill -TERM $$", 143, "signal: terminated"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.script, procs.Options{Name: "it"})
			<-p.Done()
			if p.ExitCode() != tt.code || p.Status() != tt.status || !p.Ended() {
				t.Errorf("ended with %d, %q; want %d, %q", p.ExitCode(), p.Status(), tt.code, tt.status)
			}
			if err := p.Terminate(); err != nil {
				t.Errorf("terminating what has ended: %v", err)
			}
			if err := p.Failure(); err == nil || err.Error() != "it ended by itself: "+tt.status {
				t.Errorf("the failure is %v", err)
			}
		})
	}
}

func TestStartReportsMissingProgram(t *testing.T) {
	t.Parallel()
	if _, err := procs.Start(exec.Command("/nowhere/program"), procs.Options{}); err == nil || !strings.HasPrefix(err.Error(), "starting program: ") {
		t.Errorf("error %v", err)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script string
		grace        time.Duration
		killed       bool
		code         int
	}{
		{"ends when asked to", `trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done`, waitLimit, false, 3},
		{"must be killed", `trap '' TERM; echo ready; while :; do sleep 0.05; done`, 200 * time.Millisecond, true, 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, tt.script, procs.Options{Log: new(procs.Log)})
			await(t, p, procs.Match{Text: "ready"})
			if killed := p.Stop(tt.grace); killed != tt.killed || p.ExitCode() != tt.code {
				t.Errorf("killed %v, exit code %d; want %v, %d", killed, p.ExitCode(), tt.killed, tt.code)
			}
			if err := p.Failure(); err != nil {
				t.Errorf("it was asked to end: %v", err)
			}
		})
	}
}

func TestProcessGroup(t *testing.T) {
	t.Parallel()
	for _, foreground := range []bool{true, false} {
		p := start(t, "exec sleep 60", procs.Options{Foreground: foreground})
		group, err := syscall.Getpgid(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		if own := group == p.PID(); own == foreground {
			t.Errorf("in the foreground %v: the process is in group %d, its id is %d", foreground, group, p.PID())
		}
	}
}

// The children of a process end with it, although they hold the log open.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"ends by itself": "sleep 60 & echo child $!", "is killed": "sleep 60 & echo child $!; wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, script, procs.Options{Log: new(procs.Log)})
			line := await(t, p, procs.Match{Text: "child "})
			if name == "is killed" {
				p.Kill()
			}
			<-p.Done()
			child, err := strconv.Atoi(strings.TrimPrefix(line.Text, "child "))
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(waitLimit); syscall.Kill(child, 0) == nil && !zombie(child); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("process %d is still there", child)
				}
			}
		})
	}
}

// zombie reports whether a process has ended but was not reaped, which its new parent must do.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// A paused process does nothing, and can be killed.
func TestPause(t *testing.T) {
	t.Parallel()
	log := new(procs.Log)
	p := start(t, `while :; do echo tick; sleep 0.01; done`, procs.Options{Log: log})
	tick := procs.Match{Text: "tick"}
	await(t, p, tick)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	var paused int
	for before := -1; before != paused; time.Sleep(100 * time.Millisecond) { // lines that it wrote before may still arrive
		before, paused = paused, len(log.Find(tick))
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if _, err := p.Await(ctx, paused+1, tick); err != nil {
		t.Error(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if p.ExitCode() != 137 {
		t.Errorf("it ended with %s", p.Status())
	}
}

// A wait for a line ends with an error when no line can come.
func TestAwaitInVain(t *testing.T) {
	t.Parallel()
	p := start(t, `echo '{"msg":"begun"}'; exit 4`, procs.Options{Name: "it", Log: new(procs.Log)})
	found, err := p.Await(t.Context(), 2, procs.Match{Msg: "begun"})
	if len(found) != 1 || err == nil || !strings.HasSuffix(err.Error(), `to log "begun": it has ended (exit status 4)`) {
		t.Errorf("%v, %v", found, err)
	}
	errEnough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	p = start(t, "exec sleep 60", procs.Options{Log: new(procs.Log)})
	if _, err := p.Await(ctx, 1, procs.Match{}); !errors.Is(err, errEnough) {
		t.Errorf("error %v, want %v", err, errEnough)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	g := procs.NewGroup()
	good, err := g.Start(shell("exec sleep 60"), procs.Options{Name: "good"})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := g.Start(shell("exit 1"), procs.Options{Name: "bad"})
	if err != nil {
		t.Fatal(err)
	}
	stubborn, err := g.Start(shell(`trap '' TERM; echo ready; while :; do sleep 0.05; done`), procs.Options{Name: "stubborn", Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	await(t, stubborn, procs.Match{Text: "ready"})
	if failed := <-g.Failed(); failed != bad {
		t.Errorf("%s has failed, want %s", failed, bad)
	}
	killed := g.Stop(time.Second)
	if len(killed) != 1 || killed[0] != stubborn || !good.Ended() || good.Failure() != nil {
		t.Errorf("killed %v; want only %s", killed, stubborn)
	}
	select {
	case failed := <-g.Failed():
		t.Errorf("%s has failed, which was asked to end", failed)
	default:
	}
}
