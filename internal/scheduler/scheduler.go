package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// heartbeatInterval is how often asynq's Scheduler shows its entries. It shows them first after one of them, and
	// its default of 10 s would leave a new system without a visible schedule for that long.
	heartbeatInterval = 2 * time.Second
	// tickTimeout bounds what is asked of Redis at a tick.
	tickTimeout = 5 * time.Second
	// maxEarly is how much before its instant a tick may fire: timers and clocks are not the same thing.
	maxEarly = 500 * time.Millisecond
)

// Options are how a scheduler is watched.
type Options struct {
	// Metrics is where its metrics are registered; nil for nowhere.
	Metrics prometheus.Registerer
	// Tracing is what spans are made with; nil for none.
	Tracing trace.TracerProvider
}

// Scheduler enqueues runs on schedule. Make one with New.
type Scheduler struct {
	id      string
	jobs    *jobs.Jobs
	connect asynq.RedisConnOpt
	metrics *metrics
	tracer  trace.Tracer
	log     *slog.Logger

	// asynq enqueues a task between its two hooks, which lock and unlock mu: so each tick has the entry, whose task ID
	// it sets, for itself.
	mu      sync.Mutex
	ctx     context.Context
	entries map[string]*entry
	tick    tick
}

// entry is a job type's registered task. asynq keeps the very slice of its options, so that setting its last element,
// the task ID, changes what the next tick enqueues, and so does what is in the task's headers then.
type entry struct {
	def     tasks.Definition
	payload []byte
	options []asynq.Option
	// id is asynq's, of the registration, and registered is when that was.
	id         string
	registered time.Time
}

// tick is the one that is being enqueued.
type tick struct {
	entry *entry
	slot  time.Time
	id    tasks.RunID
	state jobs.Tick
	err   error
	span  trace.Span // of its enqueueing
}

// New returns a scheduler for the job types of the jobs' registry. Connect is for a client of asynq's Scheduler, which
// wants one of its own.
func New(j *jobs.Jobs, connect asynq.RedisConnOpt, o Options, log *slog.Logger) *Scheduler {
	return &Scheduler{
		id: jobs.NewProcessID(), jobs: j, connect: connect, log: log, entries: make(map[string]*entry),
		metrics: newMetrics(o.Metrics, j.Registry()), tracer: telemetry.Tracer(o.Tracing),
	}
}

// Run enqueues runs on schedule until ctx ends. Redis must have answered once before.
func (s *Scheduler) Run(ctx context.Context) error {
	s.ctx = ctx
	scheduler := asynq.NewScheduler(s.connect, &asynq.SchedulerOpts{
		HeartbeatInterval: heartbeatInterval,
		Location:          time.UTC,
		Logger:            telemetry.NewAsynqLogger(s.log),
		PreEnqueueFunc:    s.beforeEnqueue,
		PostEnqueueFunc:   s.afterEnqueue,
	})
	for _, def := range s.jobs.Registry().All() {
		if !def.Schedule.Enabled() {
			continue
		}
		if err := s.register(scheduler, def); err != nil {
			return err
		}
	}
	if len(s.entries) == 0 {
		s.log.Warn("No job type has a schedule")
	}
	if err := scheduler.Start(); err != nil {
		return fmt.Errorf("starting asynq's scheduler: %w", err)
	}
	if err := s.jobs.RemoveDeadHistories(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("Could not remove what dead schedulers have left", "error", err) // the next one that starts will
	}
	var loops sync.WaitGroup
	for _, e := range s.entries {
		loops.Go(func() { s.watch(ctx, scheduler, e) })
	}
	s.log.Info("Scheduler ready", "scheduler", s.id)
	s.jobs.HeartbeatLoop(ctx, jobs.RoleScheduler, s.id)
	loops.Wait()
	scheduler.Shutdown()
	return nil
}

func (s *Scheduler) register(scheduler *asynq.Scheduler, def tasks.Definition) error {
	s.log.Info("Initializing " + strings.ToLower(def.Title) + " scheduler...")
	payload, err := def.ScheduledPayload()
	if err != nil {
		return err
	}
	data, err := def.EncodePayload(payload)
	if err != nil {
		return err
	}
	e := &entry{def: def, payload: data}
	s.entries[def.Name] = e
	if err := e.register(scheduler); err != nil {
		return err
	}
	s.log.Info(def.Title+" scheduler initialized successfully", "spec", def.Schedule.Spec())
	return nil
}

// register registers the entry with asynq.
func (e *entry) register(scheduler *asynq.Scheduler) (err error) {
	e.registered = time.Now()
	if e.options == nil { // one slice for good: what was registered before may be enqueueing just now
		e.options = e.def.TaskOptions("set at each tick")
	}
	task := asynq.NewTaskWithHeaders(e.def.Name, e.payload, map[string]string{}, e.options...)
	// The queue is given a second time for the dashboard, which shows the options of the registration only.
	e.id, err = scheduler.Register(e.def.Schedule.Spec(), task, asynq.Queue(e.def.Name))
	if err != nil {
		return fmt.Errorf("registering the schedule of %s: %w", e.def.Name, err)
	}
	return nil
}

// beforeEnqueue decides what the tick that asynq is about to enqueue a task for comes to. afterEnqueue unlocks mu.
func (s *Scheduler) beforeEnqueue(task *asynq.Task, _ []asynq.Option) {
	s.mu.Lock()
	e := s.entries[task.Type()]
	t := tick{entry: e, slot: e.def.Schedule.Slot(time.Now().Add(maxEarly))}
	t.id = tasks.TickID(e.def.Name, t.slot)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), tickTimeout)
	defer cancel()
	t.state, t.err = s.jobs.BeginTick(ctx, e.def, t.slot)
	id := t.id.String()
	if t.err != nil || !t.state.Due {
		id = "" // asynq refuses a task without an ID: nothing is enqueued
	}
	e.options[len(e.options)-1] = asynq.TaskID(id)
	clear(task.Headers())
	if id != "" {
		ctx, t.span = s.startSpan(ctx, t.id)
		maps.Copy(task.Headers(), telemetry.TraceHeaders(ctx))
	}
	s.tick = t
}

// startSpan begins the span of a tick, and with it the trace of the tick's run.
func (s *Scheduler) startSpan(ctx context.Context, id tasks.RunID) (context.Context, trace.Span) {
	return s.tracer.Start(ctx, "tick "+id.Job, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(telemetry.AttributeJobType.String(id.Job), telemetry.AttributeJobID.String(id.String())))
}

// afterEnqueue records and logs what the tick came to.
func (s *Scheduler) afterEnqueue(_ *asynq.TaskInfo, err error) {
	t := s.tick
	s.mu.Unlock()
	log := s.log.With("job", t.entry.def.Name, "tick", t.slot.Format(tasks.TimestampLayout))
	if t.span != nil {
		if errors.Is(err, asynq.ErrTaskIDConflict) {
			telemetry.EndSpan(t.span, nil) // as it should be, by another scheduler
		} else {
			telemetry.EndSpan(t.span, err)
		}
		log = telemetry.LogTrace(trace.ContextWithSpan(s.ctx, t.span), log)
	}
	switch {
	case t.err != nil:
		log.Warn("Tick not enqueued yet, will be caught up", "error", t.err)
		return
	case t.state.ServedBy != "":
		s.metrics.tick(t.entry.def, t.state, false)
		log.Info("Tick served by a run that still waits", "jobId", t.state.ServedBy)
		return
	case !t.state.Due:
		log.Debug("Tick was enqueued by another scheduler")
		return
	case errors.Is(err, asynq.ErrTaskIDConflict):
		log.Debug("Tick was enqueued by another scheduler", "jobId", t.id.String())
	case err != nil:
		log.Warn("Tick not enqueued yet, will be caught up", "error", err)
		return
	default:
		s.metrics.tick(t.entry.def, t.state, false)
		log.Info("Tick enqueued", "jobId", t.id.String())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), tickTimeout)
	defer cancel()
	if err := s.jobs.EndTick(ctx, t.entry.def, t.slot); err != nil {
		log.Warn("Could not record the tick", "error", err)
	}
}
