package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long anything may take on a busy machine.
	patience = 40 * time.Second
	// stopLimit is how long a process may take to end after a SIGTERM.
	stopLimit = 10 * time.Second
	// poll is the pause between two looks at something that is waited for.
	poll = 10 * time.Millisecond
)

// binDir is where TestMain has built the binaries.
var binDir string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
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

// attrs are attributes of a line of the log. JSON's numbers are float64.
type attrs map[string]any

// process is a running binary.
type process struct {
	name string
	cmd  *exec.Cmd
	exit chan struct{} // closed when it has ended

	terminated time.Time // when it was asked to stop

	mu     sync.Mutex
	lines  []attrs // its log
	broken []string
	stderr bytes.Buffer
}

// start runs a binary until the test ends, at the latest.
func start(t *testing.T, name string, env ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: command(t, name, env), exit: make(chan struct{})}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		defer close(p.exit)
		p.readLog(out)
		_ = p.cmd.Wait() // the test looks at ProcessState
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", p, p.text())
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.broken) > 0 {
			t.Errorf("%s wrote lines that are no JSON: %q", p, p.broken)
		}
		if p.stderr.Len() > 0 { // a panic, or what the race detector has found
			t.Errorf("%s wrote to stderr: %s", p, p.stderr.String())
		}
	})
	return p
}

func (p *process) String() string { return fmt.Sprintf("%s (pid %d)", p.name, p.cmd.Process.Pid) }

func (p *process) readLog(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadBytes('\n')
		if len(text) > 0 {
			var line attrs
			invalid := json.Unmarshal(text, &line)
			p.mu.Lock()
			if invalid != nil {
				p.broken = append(p.broken, string(text))
			} else {
				p.lines = append(p.lines, line)
			}
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// text returns the end of the log.
func (p *process) text() string {
	const most = 200
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, line := range p.lines[max(0, len(p.lines)-most):] {
		data, _ := json.Marshal(line)
		b.Write(append(data, '\n'))
	}
	return b.String()
}

// log returns the lines with the message and all of the attributes.
func (p *process) log(msg string, want attrs) []attrs {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []attrs
next:
	for _, line := range p.lines {
		if line["msg"] != msg {
			continue
		}
		for name, value := range want {
			if line[name] != value {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
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
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		ended := p.ended()
		if found := p.log(msg, want); len(found) >= n {
			return found
		}
		if ended || time.Now().After(deadline) {
			t.Fatalf("%s has not logged %q %v in time %d times (it has ended: %t)", p, msg, want, n, ended)
		}
	}
}

// mustNotLog fails the test when there is a line with the message.
func (p *process) mustNotLog(t *testing.T, msg string) {
	t.Helper()
	if found := p.log(msg, nil); len(found) > 0 {
		t.Errorf("%s logged: %v", p, found)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.exit:
		return true
	default:
		return false
	}
}

// terminate asks the process to stop.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if p.ended() {
		t.Fatalf("%s has ended by itself: %s", p, p.cmd.ProcessState)
	}
	p.terminated = time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
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
	select {
	case <-p.exit:
		t.Logf("%s ended after %s", p, time.Since(p.terminated).Round(time.Millisecond))
	case <-time.After(time.Until(p.terminated.Add(stopLimit))):
		t.Fatalf("%s did not end within %s", p, stopLimit)
	}
	if status := p.cmd.ProcessState; !status.Success() {
		t.Errorf("%s ended with %s, want exit status 0", p, status)
	}
}

// kill ends the process at once, and returns when it has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exit
}
