// Package worker puts the worker program together: consumers on Redis, and a handler on MongoDB for each job type.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/syncjob"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// New returns a worker for the job types.
func New(types []jobtype.Type) daemon.Program {
	return daemon.Program{
		Name: "worker", Summary: "works on the runs that are enqueued; any number of workers share them",
		Run: func(ctx context.Context, process *daemon.Process) error { return run(ctx, process, types) },
		TryEndpoint: func(ctx context.Context, cfg config.Config, out io.Writer) error {
			return tryEndpoint(ctx, types, cfg, out)
		},
		Healthy: daemon.LiveHere(jobs.RoleWorker), AdminPort: config.AdminPortWorker,
	}
}

// heapFloor makes the heap at least that large (bytes) before the garbage collector runs. A sync leaves a lot of garbage and keeps
// next to nothing. With Go's default the collector would run 45 times for 100,000 users, and take a tenth of the worker's processor time.
const heapFloor = 16 << 20

func run(ctx context.Context, process *daemon.Process, types []jobtype.Type) (err error) {
	floor := make([]byte, heapFloor) // never written, so it takes no memory
	defer runtime.KeepAlive(floor)
	cfg, log := process.Config, process.Log
	rdb := redisconn.New(cfg.Redis, redisconn.Worker, log)
	defer func() { err = errors.Join(err, rdb.Close()) }()
	client, err := mongodb.Connect(cfg.MongoDB.URI, log, mongodb.PoolMetrics(process.Metrics), mongodb.TraceCommands(process.Tracing))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	cfg.MongoDB.LogDatabase(log)

	j := jobs.New(rdb, cfg.Registry, log)
	process.ReadyWhen(func(ctx context.Context) error { return errors.Join(j.Ping(ctx), j.CheckWrites(ctx), client.Ping(ctx)) })
	if redisconn.Await(ctx, rdb, j.Ping, log) != nil {
		return nil // asked to stop while waiting: nothing has failed
	}
	if err := j.CheckRights(ctx, true); err != nil {
		return err
	}
	if mongodb.Await(ctx, client, log) != nil {
		return nil
	}
	types, closeEndpoints, err := withEndpoints(types, cfg.Endpoints, process.Metrics, log)
	if err != nil {
		return err
	}
	defer closeEndpoints()
	database := client.Database(cfg.MongoDB.Database)
	move, err := mover(j, client, cfg, types, log)
	if err != nil {
		return err
	}
	connect := func(hooks ...redis.Hook) redis.UniversalClient { // which is gone when rdb is, and that is in the log
		return redisconn.New(cfg.Redis, redisconn.Subscription, slog.New(slog.DiscardHandler), hooks...)
	}
	stores := storesOf(client, cfg, types)
	w, err := worker.New(j, handlersOf(stores, cfg, types), worker.Options{
		Concurrency: cfg.Worker.Concurrency, Database: mongodb.NewIdentity(database, cfg.MongoDB.URI).Get, Endpoints: slices.Collect(maps.Keys(cfg.Endpoints)), History: move, Metrics: process.Metrics, Tracing: process.Tracing,
		Connect: connect,
	}, log)
	if err != nil {
		return err
	}
	defer process.WatchClock(ctx, j)()
	ctx, cancel := context.WithCancel(ctx)
	wait, err := startNotifying(ctx, j, cfg.Notify, process, connect, log)
	if err != nil {
		cancel()
		return err
	}
	var watching sync.WaitGroup
	watching.Go(func() { j.WatchTicks(ctx, jobs.MissedGrace, jobs.MissedInterval) })
	if cfg.Sync.Index {
		for _, store := range stores {
			watching.Go(func() { store.KeepIndex(ctx, log) })
		}
	}
	w.Run(ctx)
	cancel()
	watching.Wait()
	wait()
	return nil
}

// Handlers returns the handlers of the job types, by name. Those of syncs work on the client's database.
func Handlers(client *mongodb.Client, cfg config.Config, types []jobtype.Type) map[string]jobtype.Handler {
	return handlersOf(storesOf(client, cfg, types), cfg, types)
}

// storesOf returns the stores of those job types that are syncs, by name.
func storesOf(client *mongodb.Client, cfg config.Config, types []jobtype.Type) map[string]*mongodb.Store {
	stores := make(map[string]*mongodb.Store)
	for _, t := range types {
		if t.Sync == nil {
			continue
		}
		records := t.Sync.Store
		records.BulkSize = cfg.Sync.BulkSize
		records.ReadTimeout = operationTimeout(cfg.Sync.RetryBudget, mongodb.DefaultReadTimeout)
		records.WriteTimeout = operationTimeout(cfg.Sync.RetryBudget, mongodb.DefaultWriteTimeout)
		stores[t.Definition.Name] = mongodb.NewStore(client, cfg.MongoDB.Database, records)
	}
	return stores
}

func handlersOf(stores map[string]*mongodb.Store, cfg config.Config, types []jobtype.Type) map[string]jobtype.Handler {
	settings, keepFailed := cfg.Sync, failedOf(cfg.History)
	handlers := make(map[string]jobtype.Handler)
	for _, t := range types {
		name := t.Definition.Name
		if t.Sync == nil {
			handlers[name] = t.Handler
			continue
		}
		store := stores[name]
		handlers[name] = syncjob.New(store, syncjob.Options{
			Noun: t.Sync.Noun, Freshness: settings.Freshness[name], BatchSize: settings.BatchSize, MaxBatch: t.Sync.MaxBatch, Exists: store.Exists,
			Collection: store.Name(), Work: t.Sync.Work, Workers: cfg.Endpoints[name].Concurrency, Writers: settings.Writers, RangeSize: settings.RangeSize,
			RetryBudget: settings.RetryBudget, KeepFailed: keepFailed,
		})
	}
	return handlers
}

// mover makes the ends of runs add entries, and returns what moves them to the history; nil if that is switched off.
func mover(j *jobs.Jobs, client *mongodb.Client, cfg config.Config, types []jobtype.Type, log *slog.Logger) (func(context.Context, <-chan struct{}), error) {
	if cfg.History.Keep == 0 {
		return nil, nil
	}
	for _, t := range types {
		if t.Sync != nil && t.Sync.Store.Collection == cfg.History.Collection {
			return nil, fmt.Errorf("HISTORY_COLLECTION must be another collection than those of the records, was %q, which %s synchronises",
				cfg.History.Collection, t.Definition.Name)
		}
	}
	j.KeepHistory()
	store := history.NewStore(history.Options{
		Client: client, Database: cfg.MongoDB.Database, Collection: cfg.History.Collection, Keep: cfg.History.Keep, BulkSize: cfg.Sync.BulkSize,
	})
	return history.NewMover(j, store, log).Run, nil
}

// failedOf returns what the history has of the records that fail.
func failedOf(h config.History) syncrun.KeepFailed {
	switch {
	case h.Keep == 0 || h.Records == config.RecordsOff:
		return syncrun.KeepNothing
	case h.Records == config.RecordIDs:
		return syncrun.KeepIDs
	default:
		return syncrun.KeepNames
	}
}

// leastTimeout is how long an operation may take even with a smaller retry budget. Below that a busy server would look like one
// that is away.
const leastTimeout = 10 * time.Second

// operationTimeout returns how long one operation of MongoDB may take: a server that hangs, but answers pings, must not hold an
// attempt for longer than the retry budget.
func operationTimeout(budget, byDefault time.Duration) time.Duration {
	return min(byDefault, max(budget, leastTimeout))
}
