// The worker: it hears of work, wakes the consumer of each queue that has some, and bounds how many handlers run.

package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/version"
)

const (
	defaultDrainTimeout = 7 * time.Second
	// lookInterval is how often a worker looks for work that was not announced.
	lookInterval = time.Second
	// rangeLooks is how many looks there are for one at the queues of ranges.
	rangeLooks = 30
	// lookTimeout bounds one look.
	lookTimeout = 3 * time.Second
)

// Options are a worker's settings.
type Options struct {
	// Concurrency is how many handlers run at the same time, those of ranges included. A run that waits for its ranges does not
	// count.
	Concurrency int
	// DrainTimeout is how long a handler has to stop by itself when the worker shuts down. The default is 7 s. With the time to
	// release its run that stays below 10 s, after which container engines kill.
	DrainTimeout time.Duration
	// Connect makes a client with the hooks, for the subscription of an asynq Server.
	Connect func(hooks ...redis.Hook) redis.UniversalClient
	// Database tells which database the handlers work on. While that is not the database of the other workers, the worker takes
	// nothing. With nil it is not compared.
	Database func(context.Context) (string, error)
	// Endpoints are the job types whose work an endpoint does. They are compared together with the database.
	Endpoints []string
	// History moves the entries of ended runs to where they stay, while the worker takes part, until ctx ends. A value from ended says
	// that a run of this worker has just ended. It can be nil.
	History func(ctx context.Context, ended <-chan struct{})
	// Metrics registers the worker's metrics. It can be nil.
	Metrics prometheus.Registerer
	// Tracing makes the worker's spans. It can be nil.
	Tracing trace.TracerProvider
}

// Worker works on runs and ranges of all job types. Make one with New.
type Worker struct {
	id        string
	jobs      *jobs.Jobs
	handlers  map[string]jobtype.Handler // by job type
	options   Options
	places    *semaphore.Weighted    // one for each handler that can run
	consumers map[string]*consumer   // by queue
	metrics   map[string]*jobMetrics // by job type
	tracer    trace.Tracer
	servers   sync.WaitGroup // asynq Servers that shut down
	started   time.Time
	doing     sync.Map      // the IDs of the tasks that it works on
	split     sync.Map      // by announcement, the channel of the split run that waits for it
	ended     chan struct{} // has a value when a run has ended since the history was told so
	log       *slog.Logger
}

// New returns a worker for every job type of the jobs' registry, with handlers by job type. It returns an error if a job type
// has no handler. The client of the jobs should end each command within a few seconds.
func New(j *jobs.Jobs, handlers map[string]jobtype.Handler, options Options, log *slog.Logger) (*Worker, error) {
	for _, name := range j.Registry().Names() {
		if handlers[name] == nil {
			return nil, fmt.Errorf("job type %q has no handler", name)
		}
	}
	if options.DrainTimeout == 0 {
		options.DrainTimeout = defaultDrainTimeout
	}
	w := &Worker{
		id: jobs.NewProcessID(), jobs: j, handlers: handlers, options: options, started: time.Now(),
		places: semaphore.NewWeighted(int64(options.Concurrency)), consumers: make(map[string]*consumer),
		metrics: newMetrics(options.Metrics, j.Registry()), tracer: telemetry.Tracer(options.Tracing), ended: make(chan struct{}, 1), log: log,
	}
	for _, def := range j.Registry().All() {
		w.consumers[def.Queue()] = newConsumer(w, def, unitRun)
		w.consumers[def.RangeQueue()] = newConsumer(w, def, unitRange)
	}
	return w, nil
}

// Serve works until ctx ends, and then returns when all runs are released. It is Run for what a worker's process does besides: nobody
// counts it as a worker.
func (w *Worker) Serve(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.jobs.Maintain(ctx) })
	w.work(ctx)
	all.Wait()
	w.servers.Wait()
}

// Run works until ctx ends. Then it returns when all runs and ranges are released. Redis must have answered once before.
func (w *Worker) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.jobs.HeartbeatLoop(ctx, jobs.RoleWorker, w.id, w.about) })
	all.Go(func() { w.jobs.Maintain(ctx) })
	w.log.Info("Worker ready", "worker", w.id, "concurrency", w.options.Concurrency)
	if w.options.Database == nil {
		w.work(ctx)
	} else {
		(&participation{w: w}).run(ctx)
	}
	all.Wait()
	w.servers.Wait()
}

// about is what the worker says of itself.
func (w *Worker) about() jobs.About {
	about := jobs.About{Version: version.String(), Started: w.started.UnixMilli()}
	for id := range w.doing.Range {
		about.Doing = append(about.Doing, id.(string))
	}
	slices.Sort(about.Doing)
	return about
}

// work takes runs and ranges until ctx ends. Then it returns when all are released.
func (w *Worker) work(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range w.consumers {
		all.Go(func() { c.run(ctx) })
	}
	hearing := make(chan struct{})
	all.Go(func() { w.hear(ctx, hearing) })
	all.Go(func() { w.look(ctx, hearing) })
	if w.options.History != nil {
		all.Go(func() { w.options.History(ctx, w.ended) })
	}
	all.Wait()
}

// place returns a function that frees an acquired place. Calling it again does nothing.
func (w *Worker) place() (free func()) { return sync.OnceFunc(func() { w.places.Release(1) }) }

// hear wakes the consumer of each announced queue, and each run whose ranges have ended. It closes hearing when it
// misses nothing any more, or when that takes too long.
func (w *Worker) hear(ctx context.Context, hearing chan<- struct{}) {
	announced, stop := w.jobs.Announcements(ctx)
	defer func() { _ = stop() }() // the connection is of no more use
	close(hearing)
	for {
		select {
		case message, ok := <-announced:
			if !ok {
				return
			}
			if c := w.consumers[message.Payload]; c != nil {
				c.announced()
			}
			if ended, ok := w.split.Load(message.Payload); ok {
				signal(ended.(chan struct{}))
			}
		case <-ctx.Done():
			return
		}
	}
}

// look wakes the consumers of each job type that has tasks, once a second. The first look comes when the worker hears announcements, so that it
// finds what was enqueued before. Ranges only exist while a run is active, so their queues hardly need a look of their own: only ranges
// that were left behind do.
func (w *Worker) look(ctx context.Context, hearing <-chan struct{}) {
	select {
	case <-hearing:
	case <-ctx.Done():
		return
	}
	definitions := w.jobs.Registry().All()
	var runs, ranges []string
	for _, def := range definitions {
		runs = append(runs, def.Queue())
		ranges = append(ranges, def.RangeQueue())
	}
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for n := 0; ; n++ {
		for i, found := range w.hasTasks(ctx, runs) {
			if found {
				w.consumers[runs[i]].wake()
				w.consumers[definitions[i].RangeQueue()].wake()
			}
		}
		if n%rangeLooks == 0 {
			for i, found := range w.hasTasks(ctx, ranges) {
				if found {
					w.consumers[ranges[i]].wake()
				}
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// hasTasks reports for each queue whether it has tasks that have not ended. It returns nil if Redis does not answer.
func (w *Worker) hasTasks(ctx context.Context, queues []string) []bool {
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	has, err := w.jobs.HasTasks(looking, queues)
	if err != nil && ctx.Err() == nil {
		w.log.Debug("Could not look for work", "error", err)
	}
	return has
}
