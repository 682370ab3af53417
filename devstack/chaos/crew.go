// The real programs are what is broken, as processes of their own that never outlive this one.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/devstack/process"
)

const (
	// readyTimeout is how long the processes may take to start when nothing is broken.
	readyTimeout = time.Minute
	// stopGrace is how long a process may take to end after SIGTERM: 10 s, as promised, and what a busy machine adds.
	stopGrace = 12 * time.Second
	// outputGrace is how long the output of an ended process is waited for.
	outputGrace = time.Second
	readyPoll   = 50 * time.Millisecond
)

// The names of the roles, which are those of their programs.
const (
	apiRole       = "api"
	schedulerRole = "scheduler"
	workerRole    = "worker"
)

// role is what several processes are.
type role struct {
	name  string
	count int
	// ready is what they log then.
	ready string
	// servers are those that they use.
	servers []string
}

// roles are all that is run.
var roles = []role{
	{apiRole, 2, "API ready", []string{redisName, mongoName}},
	{schedulerRole, 3, "Scheduler ready", []string{redisName}},
	{workerRole, 3, "Worker ready", []string{redisName, mongoName}},
}

// names returns the names of the role's processes.
func (r role) names() []string {
	names := make([]string, r.count)
	for i := range names {
		names[i] = r.name + "-" + strconv.Itoa(i+1)
	}
	return names
}

// member is one process, which is started again and again.
type member struct {
	role
	name    string
	bin     string
	environ []string
	file    *os.File // of its log
	// claimed has a place for whoever starts, stops or freezes it.
	claimed   chan struct{}
	chronicle *chronicle
	record    *record
	watching  *sync.WaitGroup

	mu     sync.Mutex
	life   *life // the last one
	frozen bool
}

// life is a member from one start to its end. What can change is guarded by the member's mutex.
type life struct {
	child *process.Child
	ready bool
	// ending is true when it is meant to end, and over when it has.
	ending, over bool
}

// downName is what the chronicle calls a member that nobody can use.
func downName(process string) string { return process + " down" }

// start starts a member that does not run.
func (m *member) start() error {
	l := &life{}
	m.mu.Lock()
	m.life, m.frozen = l, false
	m.mu.Unlock()
	fmt.Fprintf(m.file, "--- %s starts at %s\n", m.name, time.Now().UTC().Format(time.RFC3339Nano))
	log := &childLog{out: m.file, line: func(line logLine) {
		if line.Msg == m.ready {
			m.change(func() { l.ready = true })
		}
		m.record.logged(m.name, line)
	}}
	cmd := exec.Command(filepath.Join(m.bin, m.role.name))
	cmd.Env = m.environ
	cmd.Dir = m.bin // where no .env is
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = outputGrace
	child, err := process.Start(cmd, process.Options{OwnGroup: true, DeathSignal: syscall.SIGKILL})
	if err != nil {
		return fmt.Errorf("starting %s: %w", m.name, err)
	}
	m.change(func() { l.child = child })
	m.watching.Go(func() {
		<-child.Done()
		log.end()
		var ending bool
		m.change(func() { ending, l.over = l.ending, true })
		for _, text := range log.odd {
			m.record.breach(promiseProcesses, "%s wrote what is no line of a log: %s", m.name, text)
		}
		if !ending {
			m.record.breach(promiseProcesses, "%s ended by itself: %s", m.name, child.Status())
		}
	})
	return nil
}

// change changes the member's state, and tells the chronicle whether it is down then.
func (m *member) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	l := m.life
	m.chronicle.set(downName(m.name), l == nil || !l.ready || l.ending || l.over || m.frozen)
}

// up reports whether it can be used.
func (m *member) up() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life != nil && m.life.ready && !m.life.over && !m.frozen
}

// running returns the process; nil when there is none. It is told to be about to end when that is meant.
func (m *member) running(ending bool) *process.Child {
	var child *process.Child
	m.change(func() {
		if l := m.life; l != nil && !l.over {
			child = l.child
			l.ending = l.ending || ending
		}
	})
	return child
}

// kill kills it, frozen or not.
func (m *member) kill() {
	if child := m.running(true); child != nil {
		child.Kill()
		<-child.Done()
	}
}

// stop ends it as an operator does; after a Ctrl-C without a grace.
func (m *member) stop(ctx context.Context) {
	child := m.running(true)
	if child == nil {
		return
	}
	began := time.Now()
	_ = child.Signal(syscall.SIGTERM) // if that fails, it is killed
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-child.Done():
		if child.ExitCode() != 0 {
			m.record.breach(promiseProcesses, "%s ended with %s after SIGTERM at %s", m.name, child.Status(), clock(began))
		}
		return
	case <-timer.C:
		m.record.breach(promiseProcesses, "%s did not end within %s of SIGTERM at %s", m.name, stopGrace, clock(began))
	case <-ctx.Done():
	}
	child.Kill()
	<-child.Done()
}

// freeze stops it from doing anything until thaw.
func (m *member) freeze() error { return m.setFrozen(true, syscall.SIGSTOP) }

func (m *member) thaw() error { return m.setFrozen(false, syscall.SIGCONT) }

func (m *member) setFrozen(frozen bool, signal syscall.Signal) error {
	child := m.running(false)
	if child == nil {
		return nil
	}
	if frozen {
		m.change(func() { m.frozen = true })
	}
	if err := child.Signal(signal); err != nil {
		return fmt.Errorf("sending %s a signal: %w", m.name, err)
	}
	if !frozen {
		m.change(func() { m.frozen = false })
	}
	return nil
}

// errNotReady says that a process did not start.
var errNotReady = errors.New("it did not become ready")

// await waits until it can be used.
func (m *member) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errNotReady)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for !m.up() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", m.name, context.Cause(ctx))
		}
	}
	return nil
}
