package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/devstack/process"
)

const (
	// stopGrace is how long a process may take to end: a worker takes up to 8 s to hand back what it is working on.
	stopGrace = 12 * time.Second
	// outputGrace is how long the output of an ended process is waited for, which a process of its own may hold open.
	outputGrace = time.Second
)

// member is one process of a group.
type member struct {
	name   string
	child  *process.Child
	stream *stream
}

// group is processes that run and end together.
type group struct {
	console *console
	environ []string
	members []member
	ended   chan member // whoever ends
	waiting sync.WaitGroup
}

func newGroup(c *console, environ []string, size int) *group {
	return &group{console: c, environ: environ, ended: make(chan member, size)}
}

// start starts the program at path under a name, with settings of its own besides those of all.
func (g *group) start(name, path string, own ...string) error {
	m := member{name: name, stream: g.console.stream(name, len(g.members))}
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	cmd := exec.Command(path)
	cmd.Env = slices.Concat(g.environ, own)
	cmd.Dir = filepath.Dir(path)                // where no .env is: the demo is not for settings that are meant for something else
	cmd.Stdout, cmd.Stderr = m.stream, m.stream // one pipe for both, which keeps their order
	cmd.WaitDelay = outputGrace
	// Out of reach of the terminal's Ctrl-C: a process that had two signals might think that it is to hurry.
	child, err := process.Start(cmd, process.Options{OwnGroup: true, DeathSignal: syscall.SIGKILL})
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	m.child = child
	g.members = append(g.members, m)
	g.waiting.Go(func() {
		<-child.Done()
		m.stream.flush()
		g.ended <- m
	})
	return nil
}

// stop ends all processes at once and returns when the last has ended.
func (g *group) stop() {
	var stopping sync.WaitGroup
	for _, m := range g.members {
		stopping.Go(func() {
			if m.child.Stop(stopGrace) {
				g.console.printf("demo: %s did not end within %v and was killed\n", m.name, stopGrace)
			}
		})
	}
	stopping.Wait()
	g.waiting.Wait()
}

// withDefaults returns the environment together with those of the defaults that it does not set.
func withDefaults(environ []string, getenv func(string) string, defaults map[string]string) []string {
	environ = append([]string(nil), environ...)
	for name, value := range defaults {
		if getenv(name) == "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// executable returns an error unless path is a program.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", path)
	}
	return nil
}
