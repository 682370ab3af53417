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
	"strings"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

const (
	// readyTimeout is how long the processes may take to start when nothing is broken.
	readyTimeout = time.Minute
	// maxOdd is how many lines that are none of a log are reported of one life.
	maxOdd = 5
)

// The names of the roles, which are those of their programs.
const (
	apiRole       = procs.API
	schedulerRole = procs.Scheduler
	workerRole    = procs.Worker
)

// role is what several processes are.
type role struct {
	name  string
	count int
	// servers are those that they use.
	servers []string
}

// roles are all that is run.
var roles = []role{
	{apiRole, 2, []string{redisName, mongoName}},
	{schedulerRole, 3, []string{redisName}},
	{workerRole, 3, []string{redisName, mongoName}},
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
	process *procs.Process
	ready   bool
	began   chan struct{} // closed when it is ready
	// ending is true when it is meant to end, and over when it has.
	ending, over bool
}

// downName is what the chronicle calls a member that nobody can use.
func downName(process string) string { return process + " down" }

// start starts a member that does not run.
func (m *member) start() error {
	l := &life{began: make(chan struct{})}
	m.mu.Lock()
	m.life, m.frozen = l, false
	m.mu.Unlock()
	fmt.Fprintf(m.file, "--- %s starts at %s\n", m.name, time.Now().UTC().Format(time.RFC3339Nano))
	ready := procs.Ready(m.role.name).Msg
	var odd []string
	log := &procs.Log{Copy: m.file, Each: func(e procs.Entry) {
		switch {
		case e.Attrs != nil:
			if e.Msg() == ready && !l.ready {
				m.change(func() { l.ready = true })
				close(l.began)
			}
			m.record.logged(m.name, newLogLine(e))
		case strings.TrimSpace(e.Text) != "" && len(odd) < maxOdd:
			odd = append(odd, e.Text)
		}
	}}
	cmd := exec.Command(filepath.Join(m.bin, m.role.name))
	cmd.Env = m.environ
	cmd.Dir = m.bin // where no .env is
	process, err := procs.Start(cmd, procs.Options{Name: m.name, Log: log})
	if err != nil {
		return err
	}
	m.change(func() { l.process = process })
	m.watching.Go(func() {
		<-process.Done()
		m.change(func() { l.over = true })
		for _, text := range odd {
			m.record.breach(promiseProcesses, "%s wrote what is no line of a log: %s", m.name, text)
		}
		if err := process.Failure(); err != nil {
			m.record.breach(promiseProcesses, "%s", err)
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

// running returns the process; nil when there is none. It is told to be about to end when that is meant.
func (m *member) running(ending bool) *procs.Process {
	var process *procs.Process
	m.change(func() {
		if l := m.life; l != nil && !l.over {
			process = l.process
			l.ending = l.ending || ending
		}
	})
	return process
}

// kill kills it, frozen or not.
func (m *member) kill() {
	if process := m.running(true); process != nil {
		process.Kill()
	}
}

// stop ends it as an operator does; after a Ctrl-C without a grace.
func (m *member) stop(ctx context.Context) {
	process := m.running(true)
	if process == nil {
		return
	}
	if ctx.Err() != nil {
		process.Kill()
		return
	}
	defer context.AfterFunc(ctx, process.Kill)()
	began := time.Now()
	killed := process.Stop(procs.StopGrace)
	switch {
	case ctx.Err() != nil:
	case killed:
		m.record.breach(promiseProcesses, "%s did not end within %s of SIGTERM at %s", m.name, procs.StopGrace, clock(began))
	case process.ExitCode() != 0:
		m.record.breach(promiseProcesses, "%s ended with %s after SIGTERM at %s", m.name, process.Status(), clock(began))
	}
}

// freeze stops it from doing anything until thaw.
func (m *member) freeze() error {
	process := m.running(false)
	if process == nil {
		return nil
	}
	m.change(func() { m.frozen = true })
	return process.Pause()
}

func (m *member) thaw() error {
	process := m.running(false)
	if process == nil {
		return nil
	}
	if err := process.Resume(); err != nil {
		return err
	}
	m.change(func() { m.frozen = false })
	return nil
}

// errNotReady says that a process did not start.
var errNotReady = errors.New("it did not become ready")

// await waits until it has become ready.
func (m *member) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errNotReady)
	defer cancel()
	m.mu.Lock()
	began := m.life.began
	m.mu.Unlock()
	select {
	case <-began:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", m.name, context.Cause(ctx))
	}
}
