package procs

import (
	"os/exec"
	"sync"
	"time"
)

// Group is a set of processes that run and end together. Use it from one goroutine.
type Group struct {
	processes []*Process
	failed    chan *Process
	watching  sync.WaitGroup
}

// failures is how many processes can end before someone asks for them.
const failures = 16

// NewGroup returns a group without processes.
func NewGroup() *Group { return &Group{failed: make(chan *Process, failures)} }

// Start starts a process of the group.
func (g *Group) Start(cmd *exec.Cmd, o Options) (*Process, error) {
	p, err := Start(cmd, o)
	if err != nil {
		return nil, err
	}
	g.processes = append(g.processes, p)
	g.watching.Go(func() {
		<-p.Done()
		if p.Failure() != nil {
			select {
			case g.failed <- p:
			default: // there are enough
			}
		}
	})
	return p, nil
}

// Failed receives the processes that end by themselves.
func (g *Group) Failed() <-chan *Process { return g.failed }

// Stop stops all processes at the same time, as Process.Stop does, and returns those that it had to kill.
func (g *Group) Stop(grace time.Duration) (killed []*Process) {
	late := make([]bool, len(g.processes))
	var stopping sync.WaitGroup
	for i, p := range g.processes {
		stopping.Go(func() { late[i] = p.Stop(grace) })
	}
	stopping.Wait()
	g.watching.Wait()
	for i, p := range g.processes {
		if late[i] {
			killed = append(killed, p)
		}
	}
	return killed
}
