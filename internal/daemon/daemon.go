// Package daemon is what the mains of the deployables have in common: the command line, the log, signals and the exit
// status. What a deployable does is in the package that it is named after.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// exitFailure is the status when run has failed.
const exitFailure = 1

// stopTimeout is how long a process may take to stop. It takes longer only when a server hangs, for which the
// libraries' own ends have no limit; container engines kill after 10 s.
const stopTimeout = 9 * time.Second

// traceTimeout bounds the sending of the last traces.
const traceTimeout = time.Second

// healthTimeout bounds a health check.
const healthTimeout = 3 * time.Second

// Program is a deployable.
type Program struct {
	// Name is the command's.
	Name string
	// Summary says in half a sentence what it does.
	Summary string
	// AdminPort is where its metrics and probes are, where ADMIN_PORT does not say.
	AdminPort int
	// Run does it until the context ends.
	Run func(context.Context, *Process) error
	// Healthy returns an error when the one that runs on this host is not well.
	Healthy func(context.Context, config.Config, *slog.Logger) error
}

// Process is a program that runs, as its Run sees it.
type Process struct {
	Config config.Config
	Log    *slog.Logger
	// Metrics is what Prometheus is told; Run adds its own.
	Metrics *prometheus.Registry
	// Tracing is what spans are made with; nil for none.
	Tracing trace.TracerProvider

	ready atomic.Pointer[func(context.Context) error]
}

// Main runs a program until SIGTERM or SIGINT end run's context, and ends the process: with 0 when run returned nil
// or took too long to stop. A second signal ends it at once.
func Main(p Program) {
	cfg, status, ok := config.FromCommandLine(p.Name, p.Summary, os.Args[1:], os.Stdout, os.Stderr)
	if !ok {
		os.Exit(status)
	}
	if cfg.CheckHealth {
		os.Exit(checkHealth(p, cfg))
	}
	log := telemetry.NewLogger(os.Stdout, cfg.Log.Level, cfg.Log.Format).With("service", p.Name)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		log.Info("Stopping")
		time.AfterFunc(stopTimeout, func() {
			log.Warn("Stopped before all was done", "error", "a server does not answer")
			os.Exit(config.ExitOK)
		})
	})
	redis.SetLogger(telemetry.NewRedisLogger(log))
	switch err := Run(ctx, p, cfg, log); {
	case err != nil && ctx.Err() == nil:
		log.Error("Failed", "error", err)
		stop()
		os.Exit(exitFailure)
	case err != nil:
		log.Warn("Stopped before all was done", "error", err)
	default:
		log.Info("Stopped")
	}
}

// Run runs a program with its admin port and its traces until ctx ends, and returns what the program's Run does. It is Main
// without what only a process of its own has.
func Run(ctx context.Context, p Program, cfg config.Config, log *slog.Logger) error {
	log.Info("Starting", "version", config.Version(), "settings", cfg)
	process := &Process{Config: cfg, Log: log, Metrics: telemetry.NewRegistry(p.Name, config.Version())}
	tracing, endTracing, err := telemetry.NewTracerProvider(ctx, telemetry.TracingOptions{
		Service: p.Name, Version: config.Version(),
		Endpoint: cfg.Tracing.Endpoint, Headers: cfg.Tracing.Headers, Ratio: cfg.Tracing.Ratio,
	}, log)
	if err != nil {
		return err
	}
	process.Tracing = tracing
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // while it stops, too
	var watching sync.WaitGroup
	watching.Go(func() { process.serveAdmin(watched, cfg.Admin, p.AdminPort, ctx.Done()) })
	err = p.Run(ctx, process)
	unwatch()
	watching.Wait()
	sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceTimeout)
	defer cancel()
	if late := endTracing(sending); late != nil {
		log.Debug("The last traces were not sent", "error", late)
	}
	return err
}

func checkHealth(p Program, cfg config.Config) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	redis.SetLogger(telemetry.NewRedisLogger(quiet))
	if err := p.Healthy(ctx, cfg, quiet); err != nil {
		fmt.Fprintf(os.Stderr, "%s: not healthy: %v\n", p.Name, err)
		return exitFailure
	}
	return config.ExitOK
}

// LiveHere is the Healthy of programs that send heartbeats.
func LiveHere(role jobs.Role) func(context.Context, config.Config, *slog.Logger) error {
	return func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
		rdb := redisconn.New(cfg.Redis, redisconn.Prompt, log)
		defer rdb.Close()
		return jobs.New(rdb, cfg.Registry, log).LiveHere(ctx, role)
	}
}
