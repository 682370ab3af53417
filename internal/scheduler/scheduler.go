// The scheduler: a timer for each schedule, and asynq's Scheduler beside them to show the schedules.

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
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/version"
)

// heartbeatInterval is how often asynq's Scheduler writes its entries. It does so first after one interval: with its default of
// 10 s, people would see no schedule for that long.
const heartbeatInterval = 2 * time.Second

// Options are where a scheduler's metrics and spans go.
type Options struct {
	// Metrics registers the scheduler's metrics. It can be nil.
	Metrics prometheus.Registerer
	// Tracing makes the scheduler's spans. It can be nil.
	Tracing trace.TracerProvider
}

// Scheduler enqueues the runs of ticks. Make one with New.
type Scheduler struct {
	id      string
	jobs    *jobs.Jobs
	connect asynq.RedisConnOpt
	metrics *metrics
	tracer  trace.Tracer
	log     *slog.Logger
	now     func() time.Time // the wall clock, without a monotonic reading
}

// New returns a scheduler for the job types of the jobs' registry. Connect makes the client that asynq's Scheduler needs for
// itself.
func New(j *jobs.Jobs, connect asynq.RedisConnOpt, o Options, log *slog.Logger) *Scheduler {
	return &Scheduler{
		id: jobs.NewProcessID(), jobs: j, connect: connect, log: log, now: wallClock,
		metrics: newMetrics(o.Metrics, j.Registry()), tracer: telemetry.Tracer(o.Tracing),
	}
}

// Run enqueues the runs of ticks until ctx ends. It returns an error if a schedule cannot be shown. Redis must have answered
// once before.
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
	running.Go(func() { s.jobs.Maintain(ctx) })
	for _, t := range timers {
		running.Go(func() { t.run(ctx) })
	}
	for _, def := range s.jobs.Registry().All() {
		if def.Schedule.Enabled() {
			continue // its timer records it
		}
		if err := s.jobs.RecordSchedule(ctx, def); err != nil && ctx.Err() == nil {
			s.log.Warn("Could not record that a job type has no schedule; it may be said to miss ticks", "job", def.Name, "error", err)
		}
	}
	if err := s.jobs.RemoveDeadHistories(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("Could not remove what dead schedulers have left", "error", err) // the next scheduler that starts will do it
	}
	s.log.Info("Scheduler ready", "scheduler", s.id)
	about := jobs.About{Version: version.String(), Started: time.Now().UnixMilli()}
	s.jobs.HeartbeatLoop(ctx, jobs.RoleScheduler, s.id, func() jobs.About { return about })
	running.Wait()
	shown.Shutdown()
	return nil
}

// show registers the schedule with asynq's Scheduler, for the dashboard, `asynq cron ls` and Jobs.Schedules. asynq refuses to
// enqueue a task with an empty ID, without asking Redis and without a line in the log. So asynq shows the entry, and only the
// timer enqueues.
func show(shown *asynq.Scheduler, def tasks.Definition) error {
	payload, err := def.ScheduledPayload()
	if err != nil {
		return err
	}
	data, err := def.EncodePayload(payload)
	if err != nil {
		return err
	}
	// The dashboard shows the options given to Register, but not the task's own.
	task := asynq.NewTask(def.Name, data, asynq.TaskID(""))
	if _, err := shown.Register(def.Schedule.Spec(), task, asynq.Queue(def.Queue())); err != nil {
		return fmt.Errorf("registering the schedule of %s: %w", def.Name, err)
	}
	return nil
}
