// The crew: the real programs, as processes that end with this one.

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
	// maxOdd is how many lines that are not JSON are reported of one life.
	maxOdd = 5
)

// The names of the roles, which are the names of their programs.
const (
	apiRole       = procs.API
	schedulerRole = procs.Scheduler
	workerRole    = procs.Worker
)

// role is a kind of process, such as worker.
type role struct {
	name  string
	count int
	// servers are the servers that its processes use.
	servers []string
}

// roles are the roles that chaos runs.
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
	// claimed has one place, for the fault that starts, stops or freezes the member.
	claimed   chan struct{}
	chronicle *chronicle
	record    *record
	watching  *sync.WaitGroup

	mu     sync.Mutex
	life   *life // the last one
	frozen bool
}

// life is a member from one start to its end. The member's mutex guards the fields that change.
type life struct {
	process *procs.Process
	ready   bool
	began   chan struct{} // closed when it is ready
	// ending is true when chaos ends it, and over when it has ended.
	ending, over bool
}

// downName is the chronicle's name of the times in which a member cannot work.
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
			m.record.breach(promiseProcesses, "%s wrote a line that is not JSON: %s", m.name, text)
		}
		if err := process.Failure(); err != nil {
			m.record.breach(promiseProcesses, "%s", err)
		}
	})
	return nil
}

// change changes the member's state, and tells the chronicle whether it is down afterwards.
func (m *member) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	l := m.life
	m.chronicle.set(downName(m.name), l == nil || !l.ready || l.ending || l.over || m.frozen)
}

// running returns the life of the process that runs; nil when there is none. With ending it marks the life as one that chaos
// ends.
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

// errNotReady is the error of a process that did not become ready.
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
