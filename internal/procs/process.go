// Package procs starts programs for tests and for devstack, watches them, reads their logs and ends them.
//
// It exists because os/exec alone leaves children running when the parent is killed, because a terminal's Ctrl-C reaches
// every process of the foreground group at once, and because the log of a program is how its owner knows what it does. It
// restarts nothing. No program that is shipped uses it.
package procs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// outputGrace is how long the output of an ended process is waited for, which a process of its own may hold open.
const outputGrace = time.Second

// Options say how a process stands to the one that starts it.
type Options struct {
	// Name is what messages call the process; the name of the program's file if it is empty.
	Name string
	// Log takes what the process writes to stdout and stderr. Both share one pipe, which keeps the order of the lines.
	// Without a Log the command's own Stdout and Stderr count.
	Log *Log
	// Foreground leaves the process in the group of its parent, where a terminal's Ctrl-C reaches both, and has it
	// terminated when the parent dies. Other processes have a group of their own, which ends with them and is killed when
	// the parent dies. Only Linux tells of a parent's death.
	Foreground bool
}

// Process is a program that was started. It is reaped in the background.
type Process struct {
	name       string
	cmd        *exec.Cmd
	log        *Log
	foreground bool
	done       chan struct{}
	err        error // of cmd.Wait; written before done is closed

	mu    sync.Mutex
	asked bool // to end
}

// Start starts the command, which must not have been started before.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	p := &Process{name: o.Name, cmd: cmd, log: o.Log, foreground: o.Foreground, done: make(chan struct{})}
	if p.name == "" {
		p.name = filepath.Base(cmd.Path)
	}
	if p.log != nil {
		cmd.Stdout, cmd.Stderr = p.log, p.log
		cmd.WaitDelay = outputGrace
	}
	cmd.SysProcAttr = attributes(o.Foreground)
	started := make(chan error, 1)
	go func() {
		// To the kernel the parent is the thread that started the process. Without the lock Go may end that thread while
		// the process still runs, which would then get its signal.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.err = cmd.Wait()
		if !p.foreground {
			_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // what it has left behind
		}
		if p.log != nil {
			p.log.End()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// Name returns what messages call the process.
func (p *Process) Name() string { return p.name }

// String returns the name with the process id.
func (p *Process) String() string { return fmt.Sprintf("%s (pid %d)", p.name, p.PID()) }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns what Options had; nil for none.
func (p *Process) Log() *Log { return p.log }

// Done is closed when the process has ended and its log is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether Done is closed.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Status describes how the process ended, such as "exit status 1" or "signal: killed". Only for after Done.
func (p *Process) Status() string {
	if p.cmd.ProcessState == nil { // Wait itself failed
		return p.err.Error()
	}
	return p.cmd.ProcessState.String()
}

// ExitCode returns the exit status as a shell would: 128 and the number of the signal that ended the process, if one did.
// Only for after Done.
func (p *Process) ExitCode() int {
	state := p.cmd.ProcessState
	if state == nil {
		return 1
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// Failure says how the process ended if that was not asked for by Terminate, Stop or Kill; nil otherwise.
func (p *Process) Failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked || !p.Ended() {
		return nil
	}
	return fmt.Errorf("%s ended by itself: %s", p.name, p.Status())
}

// errEnded says that a process can log nothing any more.
var errEnded = errors.New("it has ended")

// Await waits until the log has n lines that match, and returns them. It returns an error, and the lines that there are,
// when ctx ends before, or the process.
func (p *Process) Await(ctx context.Context, n int, match Match) ([]Entry, error) {
	found, err := p.log.Wait(ctx, n, match)
	if errors.Is(err, errEnded) {
		<-p.done
		err = fmt.Errorf("%w (%s)", err, p.Status())
	}
	if err != nil {
		err = fmt.Errorf("waiting for %s to log %s: %w", p, match, err)
	}
	return found, err
}

// Pause stops the process from doing anything until Resume.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

// Terminate asks the process to end.
func (p *Process) Terminate() error {
	p.ask()
	return p.signal(syscall.SIGTERM)
}

func (p *Process) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.Ended() {
		p.asked = true
	}
}

// signal sends a signal to the process alone. That it has ended is no error.
func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s the signal %q: %w", p, s, err)
	}
	return nil
}

// Kill kills the process, together with its group if it has one of its own, and returns when it has ended.
func (p *Process) Kill() {
	p.ask()
	if p.Ended() { // the id may be another's by now
		return
	}
	if p.foreground {
		_ = p.cmd.Process.Kill()
	} else {
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// Stop asks the process to end, kills it when it has not ended after the grace, and returns when it has ended. It reports
// whether it had to kill.
func (p *Process) Stop(grace time.Duration) (killed bool) {
	_ = p.Terminate() // if that fails, it is killed
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return false
	case <-timer.C:
		p.Kill()
		return true
	}
}
