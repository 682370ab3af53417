// Command worker works on the runs that are enqueued; any number of them share the work.
package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func main() {
	daemon.Main(daemon.Program{
		Name: "worker", Summary: "works on the runs that are enqueued; any number of workers share them",
		Run: run, Healthy: daemon.LiveHere(jobs.RoleWorker),
	})
}

func run(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	rdb := jobs.NewRedis(daemon.RedisOptions(cfg.Redis, daemon.PatientTimeout), log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	client, err := mongodb.Connect(cfg.MongoDB.URI, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	j := jobs.New(rdb, cfg.Registry, log)
	w, err := worker.New(j, worker.Processors(client.Database(cfg.MongoDB.Database), cfg.Sync),
		worker.Options{Concurrency: cfg.Worker.Concurrency}, log)
	if err != nil {
		return err
	}
	if jobs.Await(ctx, rdb, log) != nil || mongodb.Await(ctx, client, log) != nil {
		return nil // asked to stop while waiting: nothing has failed
	}
	w.Run(ctx)
	return nil
}
