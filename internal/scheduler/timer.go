package scheduler

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// wakeInterval is the longest that a timer sleeps. Go's timers see neither a step of the clock nor a machine that was
	// suspended, and a tick that could not be enqueued is tried again then.
	wakeInterval = 500 * time.Millisecond
	// tickTimeout bounds what is asked of Redis at a tick.
	tickTimeout = 5 * time.Second
	// notableLateness is from when on the log and the metrics call a tick overdue.
	notableLateness = 3 * time.Second
)

// wallClock is the time without a monotonic reading, so that two of them compare as clocks on a wall do.
func wallClock() time.Time { return time.Now().Round(0) }

// timer enqueues the ticks of one job type. Of several that are overdue it enqueues only the latest.
type timer struct {
	*Scheduler
	def tasks.Definition
	// handled is the time of the latest tick that needs nothing more.
	handled time.Time
	// warned is the time of the tick of which the log says that it was not enqueued.
	warned time.Time
}

// run returns when ctx ends.
func (t *timer) run(ctx context.Context) {
	if !t.start(ctx) {
		return
	}
	for {
		now := t.now()
		if tickTime := t.def.Schedule.Prev(now); tickTime.After(t.handled) {
			t.tick(ctx, tickTime)
		}
		wait := wakeInterval
		if next := t.def.Schedule.Next(now); !next.IsZero() {
			wait = min(wait, next.Sub(t.now()))
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// start finds out which tick was handled last. On a system that never had a tick the first one is the next. It tries until
// it succeeds, or returns false when ctx ends.
func (t *timer) start(ctx context.Context) bool {
	first := t.def.Schedule.Prev(t.now())
	for failed := false; ; failed = true {
		err := t.readLast(ctx, first)
		if err == nil {
			return true
		}
		if ctx.Err() == nil && !failed {
			t.log.Warn("Could not look for overdue ticks, trying again", "job", t.def.Name, "error", err)
		}
		if !sleep(ctx, wakeInterval) {
			return false
		}
	}
}

func (t *timer) readLast(ctx context.Context, first time.Time) (err error) {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	if err := t.jobs.FirstTick(ctx, t.def, first); err != nil {
		return err
	}
	t.handled, err = t.jobs.LastTick(ctx, t.def)
	return err
}

// tick enqueues the run of the tick, and records and logs what became of it. One that fails is tried again at the next look
// at the clock. When ctx ends meanwhile it goes on: what is half done would be missing from log and metrics.
func (t *timer) tick(ctx context.Context, tickTime time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tickTimeout)
	defer cancel()
	id := tasks.TickID(t.def.Name, tickTime)
	// The tick begins the trace of its run.
	ctx, span := t.tracer.Start(ctx, "tick "+t.def.Name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(telemetry.AttributeJobType.String(t.def.Name), telemetry.AttributeJobID.String(id.String())))
	tick, err := t.jobs.EnqueueTick(ctx, t.def, tickTime)
	telemetry.EndSpan(span, err)
	if err == nil {
		t.handled = tickTime
	}

	late := t.now().Sub(tickTime)
	log := telemetry.LogTrace(ctx, t.log).With("job", t.def.Name, "tick", tickTime.Format(tasks.TimestampLayout))
	what, overdue := "Tick", late > notableLateness
	if overdue {
		what = "Overdue tick"
	}
	t.metrics.tick(t.def, tick, overdue)
	switch {
	case tick.Enqueued:
		log.Info(what+" enqueued", "jobId", id.String(), "late", late.Round(time.Millisecond).String())
		if err != nil {
			log.Warn("Could not record the tick", "error", err)
		}
	case tick.ServedBy != "":
		log.Info(what+" served by a run that still waits", "jobId", tick.ServedBy, "late", late.Round(time.Millisecond).String())
	case err == nil:
		log.Debug("Tick was enqueued by another scheduler", "jobId", id.String())
	case !tickTime.Equal(t.warned):
		t.warned = tickTime
		log.Warn("Tick not enqueued yet, will be caught up", "error", err)
	}
}

// sleep waits, and returns false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
