// Package procs starts programs for tests and for devstack, watches them, reads their logs and ends them.
//
// With os/exec alone children go on when their parent is killed, a terminal's Ctrl-C reaches every process of the foreground
// group at once, and logs are left to the caller. This package restarts nothing, and no program that is shipped uses it.
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

// outputGrace bounds the wait for the output of an ended process, which a child of that process may hold open.
const outputGrace = time.Second

// Options say how to start a process.
type Options struct {
	// Name is what messages call the process; the name of the program's file if it is empty.
	Name string
	// Log takes stdout and stderr of the process. Both share one pipe, which keeps the order of the lines. Without a Log the
	// command's own Stdout and Stderr are used.
	Log *Log
	// Foreground leaves the process in the group of its parent, where a terminal's Ctrl-C reaches both. When the parent dies
	// it gets a SIGTERM. Any other process has a group of its own, which ends with it, and is killed when the parent dies.
	// Only Linux signals the death of a parent.
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
			_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // children that it left behind
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

// Log returns the Log of the Options; nil for none.
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

// Status describes how the process ended, such as "exit status 1" or "signal: killed". Call it only after Done.
func (p *Process) Status() string {
	if p.cmd.ProcessState == nil { // Wait itself failed
		return p.err.Error()
	}
	return p.cmd.ProcessState.String()
}

// Signalled reports whether a signal ended the process. Call it only after Done.
func (p *Process) Signalled() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// ExitCode returns the exit status as a shell would: 128 and the number of the signal that ended the process, if one did.
// Call it only after Done.
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

// Failure returns an error that says how the process ended, unless Terminate, Stop or Kill asked it to.
func (p *Process) Failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked || !p.Ended() {
		return nil
	}
	return fmt.Errorf("%s ended by itself: %s", p.name, p.Status())
}

// errEnded is the reason why no more lines can come.
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

// signal sends a signal to the process alone. A process that has ended is no error.
func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s the signal %q: %w", p, s, err)
	}
	return nil
}

// Kill kills the process, together with its group if it has one of its own, and returns when it has ended.
func (p *Process) Kill() {
	p.ask()
	if p.Ended() { // another process may have the id by now
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
