// Package daemon has the parts that the three programs share: the command line, the log, signals, the admin port and the
// exit status. The work of a program is in the package of its name.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/version"
)

// exitFailure is the exit status when Run has failed.
const exitFailure = 1

// stopTimeout bounds the time that a process takes to stop, as container engines kill after 10 s. Only a server that hangs
// makes a stop take so long: the libraries have no limit for that.
const stopTimeout = 9 * time.Second

// traceTimeout bounds the sending of the last traces.
const traceTimeout = time.Second

// healthTimeout bounds a health check.
const healthTimeout = 3 * time.Second

// Program is one of the three programs.
type Program struct {
	// Name is the name of the command.
	Name string
	// Summary says in half a sentence what the program does.
	Summary string
	// AdminPort is the default of ADMIN_PORT.
	AdminPort int
	// Run runs the program until the context ends.
	Run func(context.Context, *Process) error
	// TryEndpoint posts a batch of sample records to the endpoint of cfg.TryEndpoint, and writes what became of it. It is nil for a
	// program that asks no endpoints.
	TryEndpoint func(ctx context.Context, cfg config.Config, out io.Writer) error
	// Healthy returns an error when the program that runs on this host is not healthy.
	Healthy func(context.Context, config.Config, *slog.Logger) error
}

// Process is a program that runs, as its Run sees it.
type Process struct {
	Config config.Config
	Log    *slog.Logger
	// Metrics has the metrics for Prometheus; Run adds its own.
	Metrics *telemetry.Registry
	// Tracing makes the spans; nil for none.
	Tracing trace.TracerProvider

	ready atomic.Pointer[func(context.Context) error]
}

// Main runs a program of a system with the job types until SIGTERM or SIGINT, which end the context of Run. It ends the process
// with status 0 when Run returned nil or took too long to stop. A second signal ends the process at once.
func Main(p Program, types []jobtype.Type) {
	registry, err := jobtype.Registry(types)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: these job types are wrong:\n  %s\n", p.Name, strings.ReplaceAll(err.Error(), "\n", "\n  "))
		os.Exit(config.ExitUsage)
	}
	cfg, status, ok := config.FromCommandLine(p.Name, p.Summary, registry, os.Args[1:], os.Stdout, os.Stderr)
	if !ok {
		os.Exit(status)
	}
	if cfg.CheckHealth {
		os.Exit(checkHealth(p, cfg))
	}
	if cfg.TryEndpoint != "" {
		if err := p.TryEndpoint(context.Background(), cfg, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
			os.Exit(exitFailure)
		}
		os.Exit(config.ExitOK)
	}
	log := telemetry.NewProcessLogger(os.Stdout, cfg.Log.Level, cfg.Log.Format).With("service", p.Name)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop()
		log.Info("Stopping")
		time.AfterFunc(stopTimeout, func() {
			log.Warn("Stopped before all was done", "error", fmt.Errorf("not done after %s", stopTimeout))
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
	log.Info("Starting", "version", version.String(), "settings", cfg)
	for _, name := range cfg.Unknown {
		log.Warn("Unknown setting", "name", name, "see", p.Name+" --help")
	}
	process := &Process{Config: cfg, Log: log, Metrics: telemetry.NewRegistry(p.Name, version.String(), string(cfg.Registry.Namespace()))}
	admin, err := process.listenAdmin(ctx, cfg.Admin, p.AdminPort)
	if err != nil {
		return err
	}
	tracing, endTracing, err := telemetry.NewTracerProvider(ctx, telemetry.TracingOptions{
		Service: p.Name, Version: version.String(),
		Endpoint: cfg.Tracing.Endpoint, Headers: cfg.Tracing.Headers, CA: cfg.Tracing.CA, Timeout: cfg.Tracing.Timeout, Ratio: cfg.Tracing.Ratio,
	}, log)
	if err != nil {
		if admin != nil {
			_ = admin.Close() // nothing was served
		}
		return err
	}
	process.Tracing = tracing
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // while it stops, too
	var watching sync.WaitGroup
	watching.Go(func() { process.serveAdmin(watched, admin, ctx.Done()) })
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

// WatchClock compares the process's clock with Redis' until ctx ends or stop is called, which waits for the end.
func (p *Process) WatchClock(ctx context.Context, j *jobs.Jobs) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { j.WatchClock(ctx, p.Metrics) })
	return func() {
		cancel()
		watching.Wait()
	}
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
