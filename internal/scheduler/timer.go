// A timer loop enqueues the ticks of one schedule. No other code does.

package scheduler

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// wakeInterval is the longest that a timer sleeps. Go's timers notice neither a clock that was set nor a machine that slept.
	// It is also the wait before a tick that could not be enqueued is tried again.
	wakeInterval = 500 * time.Millisecond
	// tickTimeout bounds the questions to Redis at a tick.
	tickTimeout = 5 * time.Second
	// notableLateness is how late a tick is before the log and the metrics call it overdue.
	notableLateness = 3 * time.Second
)

// wallClock returns the time without a monotonic reading, so that comparing two times compares wall clocks.
func wallClock() time.Time { return time.Now().Round(0) }

// timer enqueues the ticks of one job type. If several are overdue, it enqueues only the latest.
type timer struct {
	*Scheduler
	def tasks.Definition
	// handled is the time of the latest tick that was handled.
	handled time.Time
	// warned is the time of the latest tick that the log warned of.
	warned time.Time
}

// run enqueues ticks until ctx ends.
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

// start finds out which tick was handled last. On a system that never had a tick, the first one is the next to come. It tries
// until it succeeds. It returns false if ctx ends first.
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

// tick enqueues the run of the tick, and counts and logs that. If it fails, run tries again at the next look at the clock. If
// ctx ends meanwhile, tick still goes on, so that no enqueued tick is missing from the log and the metrics.
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

// sleep waits until the time is over. It returns false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
