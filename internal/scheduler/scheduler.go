package scheduler

import (
	"context"
	"fmt"
	"log/slog"
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

// heartbeatInterval is how often asynq's Scheduler shows its entries. It shows them first after one of them, and its
// default of 10 s would leave a new system without a visible schedule for that long.
const heartbeatInterval = 2 * time.Second

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
	now     func() time.Time // the wall clock, without a monotonic reading
}

// New returns a scheduler for the job types of the jobs' registry. Connect is for a client of asynq's Scheduler, which
// wants one of its own.
func New(j *jobs.Jobs, connect asynq.RedisConnOpt, o Options, log *slog.Logger) *Scheduler {
	return &Scheduler{
		id: jobs.NewProcessID(), jobs: j, connect: connect, log: log, now: wallClock,
		metrics: newMetrics(o.Metrics, j.Registry()), tracer: telemetry.Tracer(o.Tracing),
	}
}

// Run enqueues runs on schedule until ctx ends. Redis must have answered once before.
func (s *Scheduler) Run(ctx context.Context) error {
	shown := asynq.NewScheduler(s.connect, &asynq.SchedulerOpts{
		HeartbeatInterval: heartbeatInterval,
		Location:          time.UTC,
		Logger:            telemetry.NewAsynqLogger(s.log),
	})
	var timers []*timer
	for _, def := range s.jobs.Registry().All() {
		if !def.Schedule.Enabled() {
			continue
		}
		s.log.Info("Initializing " + strings.ToLower(def.Title) + " scheduler...")
		if err := show(shown, def); err != nil {
			return err
		}
		timers = append(timers, &timer{Scheduler: s, def: def})
		s.log.Info(def.Title+" scheduler initialized successfully", "spec", def.Schedule.Spec())
	}
	if len(timers) == 0 {
		s.log.Warn("No job type has a schedule")
	}
	if err := shown.Start(); err != nil {
		return fmt.Errorf("starting asynq's scheduler: %w", err)
	}
	var running sync.WaitGroup
	for _, t := range timers {
		running.Go(func() { t.run(ctx) })
	}
	if err := s.jobs.RemoveDeadHistories(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("Could not remove what dead schedulers have left", "error", err) // the next one that starts will
	}
	s.log.Info("Scheduler ready", "scheduler", s.id)
	s.jobs.HeartbeatLoop(ctx, jobs.RoleScheduler, s.id)
	running.Wait()
	shown.Shutdown()
	return nil
}

// show registers the schedule with asynq's Scheduler, for the dashboard, `asynq cron ls` and Jobs.Schedules. asynq refuses
// to enqueue a task with an empty ID, before it asks Redis for anything and without a word in the log: so the entry is
// shown, and the timer alone enqueues.
func show(shown *asynq.Scheduler, def tasks.Definition) error {
	payload, err := def.ScheduledPayload()
	if err != nil {
		return err
	}
	data, err := def.EncodePayload(payload)
	if err != nil {
		return err
	}
	// The dashboard shows the options of the registration, not those of the task.
	task := asynq.NewTask(def.Name, data, asynq.TaskID(""))
	if _, err := shown.Register(def.Schedule.Spec(), task, asynq.Queue(def.Name)); err != nil {
		return fmt.Errorf("registering the schedule of %s: %w", def.Name, err)
	}
	return nil
}
