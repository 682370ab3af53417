// The bench measures the real programs, as processes that end with their section.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/procs"
)

// The programs of the bin directory; slowProgram is a worker whose batches wait.
const (
	apiProgram    = procs.API
	workerProgram = procs.Worker
	slowProgram   = "slowworker"
)

const (
	// readyTimeout is how long a program may take to start, or to log a line that the bench waits for.
	readyTimeout = 30 * time.Second
	// interruptedGrace is how long it may take to end after a Ctrl-C.
	interruptedGrace = 3 * time.Second
)

// Settings of the product that the bench changes.
const (
	writersSetting   = "SYNC_WRITERS"
	batchSizeSetting = "SYNC_BATCH_SIZE"
	rangeSizeSetting = "SYNC_RANGE_SIZE"
)

// settings are environment variables.
type settings map[string]string

// spec describes a process to start.
type spec struct {
	program string
	bin     string      // its directory; "" for the bench's
	ready   procs.Match // the line that it logs then
	// settings come on top of the settings of all processes.
	settings settings
}

func newWorker(s settings) spec {
	return spec{program: workerProgram, ready: procs.Ready(procs.Worker), settings: s}
}

// with starts processes of the product, calls do when all are ready, and then stops them. When one of them ends by itself,
// the context of do ends with that as its cause.
func (b *bench) with(ctx context.Context, specs []spec, do func(ctx context.Context, crew []*procs.Process) error) (err error) {
	attending, cancel := context.WithCancelCause(ctx)
	group := procs.NewGroup()
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case p := <-group.Failed():
			cancel(withLog(p.Failure(), p))
		case <-attending.Done():
		}
	})
	defer func() {
		cancel(nil)
		watching.Wait()
		err = errors.Join(err, stopAll(ctx, group))
	}()
	var crew []*procs.Process
	for _, s := range specs {
		cmd := exec.Command(filepath.Join(cmp.Or(s.bin, b.bin), s.program))
		cmd.Env, cmd.Dir = b.environment(s.settings), b.bin
		p, err := group.Start(cmd, procs.Options{Log: new(procs.Log)})
		if err != nil {
			return err
		}
		crew = append(crew, p)
	}
	for i, p := range crew {
		if _, err := awaitLine(attending, p, specs[i].ready); err != nil {
			return withLog(err, p)
		}
	}
	if err := do(attending, crew); err != nil {
		if attending.Err() != nil && ctx.Err() == nil {
			return context.Cause(attending)
		}
		return err
	}
	return nil
}

// withLog adds the end of the process' log to an error.
func withLog(err error, p *procs.Process) error {
	return fmt.Errorf("%w; the end of the log of %s:\n%s", err, p.Name(), p.Log().Tail(procs.TailLines))
}

// errSilent is the error when a line was not logged in time.
var errSilent = errors.New("nothing was logged")

// awaitLine waits for a line of the process' log, and returns the first.
func awaitLine(ctx context.Context, p *procs.Process, match procs.Match) (procs.Entry, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, readyTimeout, errSilent)
	defer cancel()
	found, err := p.Await(waiting, 1, match)
	if err != nil {
		return procs.Entry{}, err
	}
	return found[0], nil
}

// stopAll stops the processes at the same time, and returns an error when one had to be killed though there was time.
func stopAll(ctx context.Context, group *procs.Group) error {
	grace := procs.StopGrace
	if ctx.Err() != nil {
		grace = interruptedGrace
	}
	var errs []error
	for _, p := range group.Stop(grace) {
		if ctx.Err() == nil {
			errs = append(errs, withLog(fmt.Errorf("%s did not end within %v", p.Name(), grace), p))
		}
	}
	return errors.Join(errs...)
}

// environment returns what a process gets: the settings of the product that this process has, those that the bench
// needs to be otherwise, and the given ones.
func (b *bench) environment(own settings) []string {
	var names []string
	for _, s := range config.Settings(codex.Registry()) {
		if !strings.HasSuffix(s.Name, "_FILE") { // the values that such files hold are below
			names = append(names, s.Name)
		}
	}
	host, port, _ := net.SplitHostPort(b.cfg.Redis.Addr) // the settings are valid
	all := settings{
		"REDIS_HOST":     host,
		"REDIS_PORT":     port,
		"REDIS_PASSWORD": b.cfg.Redis.Password,
		"REDIS_DB":       strconv.Itoa(b.cfg.Redis.DB),
		"MONGODB_URI":    b.cfg.MongoDB.URI, "MONGODB_DATABASE": b.cfg.MongoDB.Database,
		"LOG_LEVEL": "info", "LOG_FORMAT": "json",
		"ADMIN_PORT":         "off",
		"JOB_KEEP_COMPLETED": "10", // results must not be gone before they are read
	}
	maps.Copy(all, own)
	return procs.Environ(names, all)
}

// version returns what a program of the bin directory says of its version.
func (b *bench) version(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	for _, program := range []string{workerProgram, apiProgram} {
		cmd := exec.CommandContext(ctx, filepath.Join(b.bin, program), "--version")
		cmd.Env = b.environment(nil)
		cmd.WaitDelay = time.Second
		if out, err := cmd.Output(); err == nil {
			return strings.TrimSpace(strings.TrimPrefix(string(out), program))
		}
	}
	return "of unknown version"
}
