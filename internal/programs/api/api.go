// Package api puts the api program together: the HTTP server, Redis, and MongoDB, which it only asks whether it is there.
package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/redisconn"
)

// Program is the api.
var Program = daemon.Program{
	Name: "api", Summary: "triggers, inspects and controls jobs over HTTP, and shows the dashboard",
	Run: run, Healthy: healthy, AdminPort: config.AdminPortAPI,
}

func run(ctx context.Context, process *daemon.Process) (err error) {
	cfg, log := process.Config, process.Log
	rdb := redisconn.New(cfg.Redis, redisconn.Prompt, log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	long := redisconn.New(cfg.Redis, redisconn.Long, log)
	defer func() { err = errors.Join(err, long.Close()) }()
	database, err := mongodb.Connect(cfg.MongoDB.URI, log, mongodb.PoolMetrics(process.Metrics))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()

	j := jobs.New(rdb, cfg.Registry, log)
	process.ReadyWhen(j.Ping)
	server := api.New(api.Options{
		Jobs: j, Long: jobs.New(long, cfg.Registry, log), Database: database, Metrics: process.Metrics, Tracing: process.Tracing, Log: log,
		Dashboard: redisconn.ConnOpt{Options: cfg.Redis, Limits: redisconn.Prompt, Log: log}, DashboardReadOnly: cfg.HTTP.DashboardReadOnly,
		Keys: cfg.HTTP.Keys, AuthDisabled: cfg.HTTP.AuthDisabled, Certificate: cfg.HTTP.Certificate, BasePath: cfg.HTTP.BasePath, TrustedProxies: cfg.HTTP.TrustedProxies,
	})
	defer func() { err = errors.Join(err, server.Close()) }()
	if len(cfg.HTTP.Keys) == 0 {
		log.Warn("The API has no keys: it serves all who reach it", "host", cfg.HTTP.Host, "set", "API_KEYS or API_KEYS_FILE")
	}
	defer process.WatchClock(ctx, j)()
	// The API serves without Redis, too, as well as it can. Meanwhile Await logs that it waits.
	ctx, cancel := context.WithCancel(ctx)
	var awaiting sync.WaitGroup
	var lacking error
	awaiting.Go(func() {
		if redisconn.Await(ctx, rdb, j.Ping, log) != nil { // it only fails when ctx ends
			return
		}
		if lacking = j.CheckRights(ctx, false); lacking != nil {
			cancel()
			return
		}
		awaiting.Go(func() { j.WatchTicks(ctx, jobs.MissedGrace, jobs.MissedInterval) })
		j.Maintain(ctx)
	})
	defer func() {
		cancel()
		awaiting.Wait()
		err = errors.Join(err, lacking)
	}()
	return server.ListenAndServe(ctx, cfg.HTTP.Host, cfg.HTTP.Port)
}

func healthy(ctx context.Context, cfg config.Config, _ *slog.Logger) error {
	return api.Healthy(ctx, cfg.HTTP.Host, cfg.HTTP.Port, cfg.HTTP.Certificate)
}
