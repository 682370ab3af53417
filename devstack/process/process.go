// Package process starts child processes that end when their parent does, however the parent ends.
//
// It exists because os/exec alone leaves children running when the parent is killed, and because a terminal's Ctrl-C
// reaches every process of the foreground group at once, servers included. It starts, signals and reaps; it does not
// restart and knows nothing of what the child is for.
package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Options say how a child stands to its parent.
type Options struct {
	// OwnGroup puts the child into a process group of its own, out of reach of the terminal's Ctrl-C.
	OwnGroup bool
	// DeathSignal is what the kernel sends the child when its parent has died. Only Linux has that.
	DeathSignal syscall.Signal
}

// Child is a started process. It is reaped in the background: Done is closed once it has ended.
type Child struct {
	cmd      *exec.Cmd
	ownGroup bool
	done     chan struct{}
	err      error // of cmd.Wait; written before done is closed
}

// Start starts cmd, which must not have been started before.
func Start(cmd *exec.Cmd, opts Options) (*Child, error) {
	cmd.SysProcAttr = attributes(opts)
	c := &Child{cmd: cmd, ownGroup: opts.OwnGroup, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// To the kernel the parent is the thread that started the child, not the process. Without the lock Go may end
		// that thread while the child still runs, and the child would get its death signal.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// PID returns the child's process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the child has ended and all of its output has been copied.
func (c *Child) Done() <-chan struct{} { return c.done }

// Status describes how the child ended, such as "exit status 1" or "signal: killed". Only for after Done.
func (c *Child) Status() string {
	if c.cmd.ProcessState == nil { // Wait itself failed
		return c.err.Error()
	}
	return c.cmd.ProcessState.String()
}

// ExitCode returns the child's exit status as a shell would: 128 and the number of the signal that ended it, if one
// did. Only for after Done.
func (c *Child) ExitCode() int {
	state := c.cmd.ProcessState
	if state == nil {
		return 1
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// Signal sends sig to the child alone. A child that has ended already is not an error.
func (c *Child) Signal(sig syscall.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill kills the child, together with its group if it has one of its own.
func (c *Child) Kill() {
	select {
	case <-c.done: // its id may be another's by now
		return
	default:
	}
	if c.ownGroup {
		_ = syscall.Kill(-c.PID(), syscall.SIGKILL)
		return
	}
	_ = c.cmd.Process.Kill()
}

// Stop asks the child to end with SIGTERM, kills it when it has not ended after grace, and returns once it has ended.
// It says whether it had to kill.
func (c *Child) Stop(grace time.Duration) (killed bool) {
	_ = c.Signal(syscall.SIGTERM) // if that fails, killing is what is left
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return false
	case <-timer.C:
		c.Kill()
		<-c.done
		return true
	}
}
