// Another deployment in the same Redis: a scheduler and a worker, with a namespace and a database of their own. What breaks Redis
// breaks it, too. Nothing of it may reach the first deployment, and nothing of that may reach it.

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/devstack/demo/users"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	neighbourNamespace = "neighbour"
	// neighbourUsers are fewer than any collection of the first deployment has, so a full run of that one shows if it ran here.
	neighbourUsers = 20
)

type neighbour struct {
	documents *documents
	processes map[string]*procs.Process
	files     []*os.File
}

// startNeighbour starts the other deployment, and returns when it is ready.
func (c *chaos) startNeighbour(ctx context.Context) error {
	n := &neighbour{processes: make(map[string]*procs.Process)}
	n.documents = &documents{c.documents.client, c.documents.client.Database(c.documents.db.Name() + "_" + neighbourNamespace), c.seed}
	c.neighbour = n
	loading, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if _, err := n.documents.db.Collection(collections[0].name).InsertMany(loading, users.Generate(neighbourUsers, c.seed)); err != nil {
		return fmt.Errorf("loading the neighbour's users: %w", err)
	}
	own := c.commonSettings()
	own["NAMESPACE"], own["MONGODB_DATABASE"], own["REDIS_PORT"] = neighbourNamespace, n.documents.db.Name(), c.redis.port.String()
	for _, name := range []string{schedulerRole, workerRole} {
		file, err := os.Create(filepath.Join(c.dir, neighbourNamespace+"-"+name+".log"))
		if err != nil {
			return fmt.Errorf("making a log of the neighbour: %w", err)
		}
		n.files = append(n.files, file)
		cmd := exec.Command(filepath.Join(c.bin, name))
		cmd.Env = environment(own)
		cmd.Dir = c.bin // where no .env is
		process, err := procs.Start(cmd, procs.Options{Name: "the neighbour's " + name, Log: &procs.Log{Copy: file}})
		if err != nil {
			return err
		}
		n.processes[name] = process
	}
	starting, cancel := context.WithTimeoutCause(ctx, readyTimeout, errNotReady)
	defer cancel()
	for name, process := range n.processes {
		if _, err := process.Log().Wait(starting, 1, procs.Ready(name)); err != nil {
			return fmt.Errorf("waiting for %s: %w", process, err)
		}
	}
	return nil
}

// judgeNeighbour waits until the other deployment has synchronised its users since the last fault, and checks that it did nothing
// else.
func (c *chaos) judgeNeighbour(ctx context.Context, mended time.Time) error {
	n := c.neighbour
	for stale := neighbourUsers; stale > 0; {
		stamps, err := n.documents.stamps(ctx, collections[0])
		if err != nil {
			return err
		}
		stale = neighbourUsers
		for _, stamp := range stamps {
			if stamp.After(mended) {
				stale--
			}
		}
		if stale > 0 && time.Since(mended) > restLimit {
			c.record.breach(promiseNeighbour, "%s after the last fault %d of its %d users are not synchronised", restLimit, stale, neighbourUsers)
			break
		}
		if err := sleep(ctx, restPoll); err != nil {
			return err
		}
	}
	for _, process := range n.processes {
		process.Stop(procs.StopGrace)
		if err := process.Failure(); err != nil {
			c.record.breach(promiseNeighbour, "%s", err)
		}
	}
	for _, e := range n.processes[workerRole].Log().Find(procs.Match{}) {
		id, _ := e.Attrs["jobId"].(string)
		run, err := tasks.ParseRunID(id)
		if err == nil && !run.Scheduled() { // all its own runs are of ticks
			c.record.breach(promiseNeighbour, "its worker has a run of the first deployment: %s", e)
		}
		if level, _ := e.Attrs["level"].(string); level == "ERROR" && strings.Contains(e.Msg(), "job failed") {
			c.record.breach(promiseNeighbour, "a run of it failed: %s", e)
		}
	}
	return nil
}

// closeNeighbour kills what still runs, and drops its database.
func (c *chaos) closeNeighbour() error {
	if c.neighbour == nil {
		return nil
	}
	for _, process := range c.neighbour.processes {
		process.Kill()
		<-process.Done()
	}
	for _, file := range c.neighbour.files {
		_ = file.Close() // nothing reads the log after this
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	if err := c.neighbour.documents.db.Drop(ctx); err != nil {
		return fmt.Errorf("dropping the neighbour's database: %w", err)
	}
	return nil
}

// isNeighbours reports whether the key, or the queue, is one of the other deployment.
func isNeighbours(name string) bool {
	return strings.Contains(name, "{"+neighbourNamespace+":") || strings.HasPrefix(name, neighbourNamespace+":") ||
		strings.HasPrefix(name, "codex-jobs:"+neighbourNamespace+":")
}
