// Command api serves the HTTP API and the dashboard.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
)

func main() {
	daemon.Main(daemon.Program{
		Name: "api", Summary: "triggers, inspects and controls jobs over HTTP, and shows the dashboard",
		Run: run, Healthy: healthy,
	})
}

func run(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	redisOptions := daemon.RedisOptions(cfg.Redis, daemon.PromptTimeout)
	rdb := jobs.NewRedis(redisOptions, log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	database, err := mongodb.Connect(cfg.MongoDB.URI, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()

	server := api.New(api.Options{
		Jobs: jobs.New(rdb, cfg.Registry, log), Database: database,
		Dashboard: jobs.ConnOpt{Options: redisOptions, Log: log}, DashboardReadOnly: cfg.HTTP.DashboardReadOnly, Log: log,
		Keys: cfg.HTTP.Keys, AuthDisabled: cfg.HTTP.AuthDisabled, Certificate: cfg.HTTP.Certificate,
	})
	defer func() { err = errors.Join(err, server.Close()) }()
	addr := net.JoinHostPort(cfg.HTTP.Host, strconv.Itoa(cfg.HTTP.Port))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", addr, err)
	}
	// It serves without Redis, too, as well as it can. The log says why.
	ctx, cancel := context.WithCancel(ctx)
	var awaiting sync.WaitGroup
	awaiting.Go(func() { _ = jobs.Await(ctx, rdb, log) }) // fails only when ctx ends
	defer awaiting.Wait()
	defer cancel()
	return server.Serve(ctx, listener)
}

func healthy(ctx context.Context, cfg config.Config, _ *slog.Logger) error {
	return api.Healthy(ctx, cfg.HTTP.Host, cfg.HTTP.Port, cfg.HTTP.Certificate)
}
