// The real programs are measured, as processes of their own that never outlive what they are started for.

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/devstack/process"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// The programs of the bin directory.
const (
	apiProgram    = "api"
	workerProgram = "worker"
	slowProgram   = "slowworker"
)

// What the programs log when they are ready.
const (
	apiReady    = "API ready"
	workerReady = "Worker ready"
)

const (
	// readyTimeout is how long a program may take to start.
	readyTimeout = 30 * time.Second
	// stopGrace is how long it may take to end: a worker takes up to 9 s. After a Ctrl-C it has interruptedGrace.
	stopGrace        = 12 * time.Second
	interruptedGrace = 3 * time.Second
	// outputGrace is how long the output of an ended process is waited for.
	outputGrace = time.Second
)

// Settings of the product that the bench changes.
const (
	writersSetting   = "SYNC_WRITERS"
	batchSizeSetting = "SYNC_BATCH_SIZE"
	rangeSizeSetting = "SYNC_RANGE_SIZE"
)

// settings are environment variables.
type settings map[string]string

// spec says what to start.
type spec struct {
	program string
	ready   string // what it logs then
	// settings come on top of those that all processes have.
	settings settings
}

func newWorker(s settings) spec { return spec{workerProgram, workerReady, s} }

// child is a process of the product.
type child struct {
	*process.Child
	program string
	log     *childLog
}

// with starts processes of the product, calls do when all are ready, and stops them after it. When one of them ends by
// itself do's context ends, with that as its cause.
func (b *bench) with(ctx context.Context, specs []spec, do func(ctx context.Context, crew []*child) error) (err error) {
	attending, cancel := context.WithCancelCause(ctx)
	var crew []*child
	var watching sync.WaitGroup
	defer func() {
		cancel(nil)
		watching.Wait()
		err = errors.Join(err, stopAll(ctx, crew))
	}()
	for _, s := range specs {
		c, err := b.start(s)
		if err != nil {
			return err
		}
		crew = append(crew, c)
		watching.Go(func() {
			select {
			case <-c.Done():
				cancel(fmt.Errorf("%s ended by itself (%s); the end of its log:\n%s", c.program, c.Status(), c.log.end()))
			case <-attending.Done():
			}
		})
	}
	for i, c := range crew {
		if err := c.log.await(attending, specs[i].ready); err != nil {
			return fmt.Errorf("starting %s: %w", c.program, err)
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

// start starts one process, with no other environment than it needs.
func (b *bench) start(s spec) (*child, error) {
	c := &child{program: s.program, log: newChildLog(s.ready, firstBatch)}
	cmd := exec.Command(filepath.Join(b.bin, s.program))
	cmd.Env = b.environment(s.settings)
	cmd.Dir = b.bin
	cmd.Stdout, cmd.Stderr = c.log, c.log // one pipe for both
	cmd.WaitDelay = outputGrace
	// Out of reach of the terminal's Ctrl-C: the bench stops it.
	p, err := process.Start(cmd, process.Options{OwnGroup: true, DeathSignal: syscall.SIGKILL})
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.program, err)
	}
	c.Child = p
	return c, nil
}

// stopAll stops the processes at the same time, and returns an error when one had to be killed though there was time.
func stopAll(ctx context.Context, crew []*child) error {
	grace := stopGrace
	if ctx.Err() != nil {
		grace = interruptedGrace
	}
	stopped := make([]error, len(crew))
	var stopping sync.WaitGroup
	for i, c := range crew {
		stopping.Go(func() {
			if c.Stop(grace) && ctx.Err() == nil {
				stopped[i] = fmt.Errorf("%s did not end within %v; the end of its log:\n%s", c.program, grace, c.log.end())
			}
		})
	}
	stopping.Wait()
	return errors.Join(stopped...)
}

// environment returns what a process gets: the settings of the product that this process has, those that the bench
// needs to be otherwise, and the given ones.
func (b *bench) environment(own settings) []string {
	all := settings{"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME")}
	for _, s := range config.Settings(tasks.Default()) {
		value := os.Getenv(s.Name)
		if value != "" && !strings.HasSuffix(s.Name, "_FILE") { // what such a file holds is below
			all[s.Name] = value
		}
	}
	host, port, _ := net.SplitHostPort(b.cfg.Redis.Addr) // the settings are valid
	maps.Copy(all, settings{
		"REDIS_HOST":     host,
		"REDIS_PORT":     port,
		"REDIS_PASSWORD": b.cfg.Redis.Password,
		"REDIS_DB":       strconv.Itoa(b.cfg.Redis.DB),
		"MONGODB_URI":    b.cfg.MongoDB.URI, "MONGODB_DATABASE": b.cfg.MongoDB.Database,
		"LOG_LEVEL": "info", "LOG_FORMAT": "json",
		"ADMIN_PORT":         "off",
		"JOB_KEEP_COMPLETED": "10", // results must not be gone before they are read
	})
	maps.Copy(all, own)
	var environ []string
	for name, value := range all {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// version returns what a program of the bin directory says of its version.
func (b *bench) version(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	for _, program := range []string{workerProgram, apiProgram} {
		cmd := exec.CommandContext(ctx, filepath.Join(b.bin, program), "--version")
		cmd.Env = b.environment(nil)
		cmd.WaitDelay = outputGrace
		if out, err := cmd.Output(); err == nil {
			return strings.TrimSpace(strings.TrimPrefix(string(out), program))
		}
	}
	return "of unknown version"
}
