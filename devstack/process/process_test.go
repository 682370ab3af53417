package process

import (
	"bufio"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(script string) *exec.Cmd { return exec.Command("/bin/sh", "-c", script) }

func TestExitCode(t *testing.T) {
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
			c, err := Start(shell(tt.script), Options{})
			if err != nil {
				t.Fatal(err)
			}
			<-c.Done()
			if c.ExitCode() != tt.code || c.Status() != tt.status {
				t.Errorf("ended with %d, %q; want %d, %q", c.ExitCode(), c.Status(), tt.code, tt.status)
			}
			if err := c.Signal(syscall.SIGTERM); err != nil {
				t.Errorf("signalling a child that has ended: %v", err)
			}
		})
	}
}

func TestStartReportsMissingProgram(t *testing.T) {
	t.Parallel()
	if _, err := Start(exec.Command("/nowhere/program"), Options{}); err == nil {
		t.Error("starting a program that does not exist succeeded")
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
		{"ends when asked to", `trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done`, 10 * time.Second, false, 3},
		{"must be killed", `trap '' TERM; echo ready; while :; do sleep 0.05; done`, 200 * time.Millisecond, true, 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := shell(tt.script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			c, err := Start(cmd, Options{OwnGroup: true})
			if err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
				t.Fatalf("read %q, error %v", line, err)
			}
			if killed := c.Stop(tt.grace); killed != tt.killed || c.ExitCode() != tt.code {
				t.Errorf("killed %v, exit code %d; want %v, %d", killed, c.ExitCode(), tt.killed, tt.code)
			}
		})
	}
}

func TestOwnGroup(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		c, err := Start(shell("sleep 60"), Options{OwnGroup: own})
		if err != nil {
			t.Fatal(err)
		}
		group, err := syscall.Getpgid(c.PID())
		c.Kill()
		<-c.Done()
		if err != nil {
			t.Fatal(err)
		}
		if got := group == c.PID(); got != own {
			t.Errorf("with OwnGroup %v the child is in group %d, its id being %d", own, group, c.PID())
		}
	}
}
