// Package scheduler puts the scheduler program together: timers on Redis.
package scheduler

import (
	"context"
	"errors"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/scheduler"
)

// Program is the scheduler.
var Program = daemon.Program{
	Name: "scheduler", Summary: "enqueues the scheduled runs; several may run, each tick enqueues once",
	Run: run, Healthy: daemon.LiveHere(jobs.RoleScheduler), AdminPort: config.AdminPortScheduler,
}

func run(ctx context.Context, process *daemon.Process) (err error) {
	cfg, log := process.Config, process.Log
	rdb := redisconn.New(cfg.Redis, redisconn.Retrying, log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	j := jobs.New(rdb, cfg.Registry, log)
	process.ReadyWhen(func(ctx context.Context) error { return errors.Join(j.Ping(ctx), j.CheckWrites(ctx)) })
	if err := redisconn.Await(ctx, rdb, j.Ping, log); err != nil {
		return nil // asked to stop while waiting: nothing has failed
	}
	if err := j.CheckRights(ctx, false); err != nil {
		return err
	}
	defer process.WatchClock(ctx, j)()
	watched := scheduler.Options{Metrics: process.Metrics, Tracing: process.Tracing}
	return scheduler.New(j, redisconn.ConnOpt{Options: cfg.Redis, Limits: redisconn.Retrying, Log: log}, watched, log).Run(ctx)
}
