// Package api puts the api program together: the HTTP server, Redis, and MongoDB, from which it reads the history.
package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/history"
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

	j, patient := jobs.New(rdb, cfg.Registry, log), jobs.New(long, cfg.Registry, log)
	ended := historyOf(cfg, database)
	if ended != nil {
		j.KeepHistory()
		patient.KeepHistory()
	}
	process.ReadyWhen(j.Ping)
	server := api.New(api.Options{
		Jobs: j, Long: patient, Database: database, Metrics: process.Metrics, Tracing: process.Tracing, Log: log,
		History: ended, Dashboard: redisconn.ConnOpt{Options: cfg.Redis, Limits: redisconn.Prompt, Log: log}, DashboardReadOnly: cfg.HTTP.DashboardReadOnly,
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

// historyOf returns the history; nil if it is switched off.
func historyOf(cfg config.Config, database *mongodb.Client) *history.Store {
	if cfg.History.Keep == 0 {
		return nil
	}
	return history.NewStore(history.Options{
		Client: database, Database: cfg.MongoDB.Database, Collection: cfg.History.Collection, Keep: cfg.History.Keep,
	})
}

func healthy(ctx context.Context, cfg config.Config, _ *slog.Logger) error {
	return api.Healthy(ctx, cfg.HTTP.Host, cfg.HTTP.Port, cfg.HTTP.Certificate)
}
