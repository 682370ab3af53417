package worker

import (
	"context"
	"errors"

	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// Serve is the worker as a process: it waits for its servers, and works until ctx ends. The work is what it does with each
// batch of a synchronisation. Its errors are those of wrong settings, or of connections that would not close.
func Serve(ctx context.Context, process *daemon.Process, work syncrun.Work) (err error) {
	cfg, log := process.Config, process.Log
	rdb := redisconn.New(cfg.Redis, redisconn.Patient, log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	client, err := mongodb.Connect(cfg.MongoDB.URI, log, mongodb.PoolMetrics(process.Metrics), mongodb.TraceCommands(process.Tracing))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	j := jobs.New(rdb, cfg.Registry, log)
	w, err := New(j, Processors(client.Database(cfg.MongoDB.Database), cfg.Sync, work),
		Options{Concurrency: cfg.Worker.Concurrency, Metrics: process.Metrics, Tracing: process.Tracing}, log)
	if err != nil {
		return err
	}
	process.ReadyWhen(func(ctx context.Context) error { return errors.Join(j.Ping(ctx), client.Ping(ctx)) })
	if redisconn.Await(ctx, rdb, j.Ping, log) != nil || mongodb.Await(ctx, client, log) != nil {
		return nil // asked to stop while waiting: nothing has failed
	}
	w.Run(ctx)
	return nil
}
