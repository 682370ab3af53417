package worker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// Options are a worker's settings.
type Options struct {
	// Concurrency is how many runs, each of another job type, are worked on at the same time.
	Concurrency int
	// DrainTimeout is how long a run has to stop by itself when the worker shuts down; 0 is the default of 7 s, which
	// with the time to give it back stays below the 10 s after which container engines kill.
	DrainTimeout time.Duration
	// Metrics is where the worker's metrics are registered; nil for nowhere.
	Metrics prometheus.Registerer
	// Tracing is what spans are made with; nil for none.
	Tracing trace.TracerProvider
}

const defaultDrainTimeout = 7 * time.Second

// Worker works on runs. Make one with New.
type Worker struct {
	id         string
	jobs       *jobs.Jobs
	processors map[string]Processor
	options    Options
	slots      *slots
	metrics    map[string]*jobMetrics // by job type
	tracer     trace.Tracer
	keepers    sync.WaitGroup // of the consumers' sessions
	log        *slog.Logger
}

// New returns a worker for every job type of the jobs' registry. It returns an error when one has no processor.
func New(j *jobs.Jobs, processors map[string]Processor, options Options, log *slog.Logger) (*Worker, error) {
	for _, name := range j.Registry().Names() {
		if processors[name] == nil {
			return nil, fmt.Errorf("job type %q has no processor", name)
		}
	}
	if options.DrainTimeout == 0 {
		options.DrainTimeout = defaultDrainTimeout
	}
	return &Worker{
		id: jobs.NewProcessID(), jobs: j, processors: processors, options: options, slots: newSlots(options.Concurrency),
		metrics: newMetrics(options.Metrics, j.Registry()), tracer: telemetry.Tracer(options.Tracing), log: log,
	}, nil
}

// Run works until ctx ends, and then until what it worked on is given back. Redis must have answered once before.
func (w *Worker) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.jobs.HeartbeatLoop(ctx, jobs.RoleWorker, w.id) })
	consumers := make(map[string]*consumer)
	for _, def := range w.jobs.Registry().All() {
		consumers[def.Name] = newConsumer(w, def)
	}
	for _, c := range consumers {
		all.Go(func() { c.run(ctx) })
	}
	all.Go(func() { w.announceReleases(ctx, consumers) })
	all.Go(func() { newRangeConsumer(w).run(ctx) })
	w.log.Info("Worker ready", "worker", w.id, "concurrency", w.options.Concurrency)
	all.Wait()
	w.keepers.Wait()
}

// announceReleases wakes the consumer of each job type whose lease another worker has released.
func (w *Worker) announceReleases(ctx context.Context, consumers map[string]*consumer) {
	released, stop := w.jobs.Releases(ctx)
	defer func() { _ = stop() }() // a connection that is of no more use
	for {
		select {
		case message, ok := <-released:
			if !ok {
				return
			}
			if c := consumers[message.Payload]; c != nil {
				c.wake()
			}
		case <-ctx.Done():
			return
		}
	}
}

// othersLive reports whether there are other workers to hand a lease to.
func (w *Worker) othersLive(ctx context.Context) bool {
	n, err := w.jobs.Live(ctx, jobs.RoleWorker)
	return err == nil && n > 1
}
