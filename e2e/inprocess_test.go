package e2e_test

import (
	"context"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/programs/api"
	"github.com/codex-api/codex-jobs/internal/programs/scheduler"
	"github.com/codex-api/codex-jobs/internal/programs/worker"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// All three programs run in the test's process, wired as their mains wire them, so that a debugger or the race detector sees
// all of it. They complete a tick and a trigger, and stop when they are asked to.
func TestProgramsInProcess(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(25))
	cfg, err := config.Load(codex.Registry().Resolve(func(d *tasks.Definition) {
		if d.Name == userSync {
			d.Schedule = tasks.Schedule{Every: time.Second}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	address, err := url.Parse(s.api)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Redis, cfg.MongoDB.URI, cfg.MongoDB.Database = s.redis, s.mongoURI, s.users.Database().Name()
	if cfg.HTTP.Port, err = strconv.Atoi(address.Port()); err != nil {
		t.Fatal(err)
	}
	cfg.HTTP.Host, cfg.Admin.Port = address.Hostname(), config.AdminOff

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, program := range []daemon.Program{api.Program, scheduler.Program, worker.New(jobtype.All(codex.Types()))} {
		running.Go(func() {
			if err := daemon.Run(ctx, program, cfg, slog.New(slog.DiscardHandler).With("service", program.Name)); err != nil {
				t.Errorf("%s: %v", program.Name, err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		running.Wait()
	})

	c, err := client.New(s.api)
	if err != nil {
		t.Fatal(err)
	}
	asking, cancel := context.WithTimeout(ctx, testbed.WaitLimit)
	defer cancel()
	var triggered client.Triggered
	testbed.Eventually(t, "the API takes a trigger", func() bool {
		triggered, err = c.Trigger(asking, userSync, client.SyncPayload{SyncType: client.SyncFull})
		return err == nil
	})
	testbed.Eventually(t, "the trigger and a tick to be completed", func() bool {
		job, err := c.Job(asking, triggered.JobID)
		if err != nil || job.State != client.StateCompleted {
			return false
		}
		status, err := c.Status(asking, userSync)
		return err == nil && status.Counts.Completed > 1 && status.Counts.Failed == 0
	})
}
