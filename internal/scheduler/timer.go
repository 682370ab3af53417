// A timer loop handles the ticks of one schedule. No other code does.

package scheduler

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// wakeInterval is the longest that a timer sleeps. Go's timers notice neither a clock that was set nor a machine that slept.
	// It is also the wait before a tick that could not be enqueued is tried again.
	wakeInterval = 500 * time.Millisecond
	// tickTimeout bounds the questions to Redis at a tick.
	tickTimeout = 5 * time.Second
	// recordInterval is how often a timer makes sure that Redis knows the latest tick that was handled.
	recordInterval = 5 * time.Second
	// notableLateness is how late a tick is before the log and the metrics call it overdue.
	notableLateness = 3 * time.Second
	// yieldMargin is how much longer than an interval a scheduler yields to one that enqueues nothing.
	yieldMargin = 5 * time.Second
)

// errYield is the reason for not enqueueing a tick: another scheduler, whose clock shows another time, does so.
var errYield = errors.New("this scheduler's clock differs from Redis' clock and from that of another scheduler, which enqueues the ticks")

// errOvertaken is the reason for not enqueueing a tick: the last one is a broken clock's. The next try distrusts it.
var errOvertaken = errors.New("the last tick is later than the next one to come")

// wallClock returns the time without a monotonic reading, so that comparing two times compares wall clocks.
func wallClock() time.Time { return time.Now().Round(0) }

// timer enqueues the ticks of one job type. If several are overdue, it enqueues only the latest.
type timer struct {
	*Scheduler
	def tasks.Definition
	// handled is the time of the latest tick that was handled, and own of the latest that this timer saw handled: it or another
	// scheduler has enqueued it.
	handled, own time.Time
	// recorded is when the timer last made sure that Redis knows a handled tick.
	recorded time.Time
	// warned is the time of the latest tick that the log warned of.
	warned time.Time
	// last is the last tick that Redis had at a dispute, and moved is when this timer first saw that one, see yields.
	last, moved time.Time
}

// run enqueues ticks until ctx ends.
func (t *timer) run(ctx context.Context) {
	if !t.start(ctx) {
		return
	}
	for {
		now := t.now()
		if t.tooLate(t.handled, now) {
			t.correct(ctx, now)
		} else if tickTime := t.def.Schedule.Prev(now); tickTime.After(t.handled) {
			t.tick(ctx, tickTime)
		}
		t.record(ctx)
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

// record tells Redis the schedule, and the latest tick that was handled, if Redis has lost them. Otherwise the metrics would say, until the next
// tick, that all were missed.
func (t *timer) record(ctx context.Context) {
	if now := time.Now(); now.Sub(t.recorded) >= recordInterval {
		t.recorded = now
		ctx, cancel := context.WithTimeout(ctx, tickTimeout)
		defer cancel()
		if err := t.jobs.FirstTick(ctx, t.def, t.handled); err != nil && ctx.Err() == nil {
			t.log.Debug("Could not record the last tick", "job", t.def.Name, "error", err)
		}
		if err := t.jobs.RecordSchedule(ctx, t.def); err != nil && ctx.Err() == nil {
			t.log.Debug("Could not record the schedule", "job", t.def.Name, "error", err)
		}
	}
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
	tick, err := t.enqueue(ctx, tickTime)
	telemetry.EndSpan(span, err)
	if err == nil {
		t.handled, t.own = tickTime, tickTime
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

// enqueue enqueues the tick. It returns errYield if another scheduler enqueues the ticks, by a clock that shows another time.
func (t *timer) enqueue(ctx context.Context, tickTime time.Time) (jobs.Tick, error) {
	last, err := t.jobs.LastTick(ctx, t.def)
	if err != nil {
		return jobs.Tick{}, err
	}
	switch now := t.now(); {
	case t.tooLate(last, now):
		err = t.distrust(ctx, last, now, tickTime.Add(-time.Millisecond))
	case last.IsZero() || !last.Equal(t.own):
		// Another scheduler has moved the last tick, or this timer has just started. The other one may have distrusted a tick of
		// this one.
		err = t.yields(ctx, last, func(redis time.Time) bool { return t.tooLate(tickTime, redis) })
		if err == nil && !last.IsZero() && last.Before(t.handled) {
			t.log.Warn("The last tick was set back, this scheduler's clock is right", "job", t.def.Name, "last", last.Format(tasks.TimestampLayout))
		}
	}
	if err != nil {
		return jobs.Tick{}, err
	}
	tick, err := t.jobs.EnqueueTick(ctx, t.def, tickTime)
	if err != nil || tick != (jobs.Tick{}) {
		return tick, err
	}
	// Either another scheduler has handled the tick, or the tick of a broken clock came after the look at the last one.
	if last, err = t.jobs.LastTick(ctx, t.def); err == nil && t.tooLate(last, t.now()) {
		err = errOvertaken
	}
	return tick, err
}

// tooLate reports whether a tick is later than the next one to come after now.
func (t *timer) tooLate(tickTime, now time.Time) bool {
	next := t.def.Schedule.Next(now)
	return !next.IsZero() && tickTime.After(next)
}

// correct is for a latest tick that is later than the next one to come: a clock was ahead of this one, or this one was set back.
// Then the next tick to come is enqueued. If it fails, run tries again at the next look at the clock.
func (t *timer) correct(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	last, err := t.jobs.LastTick(ctx, t.def)
	if err == nil && t.tooLate(last, now) {
		last = t.def.Schedule.Prev(now)
		err = t.distrust(ctx, t.handled, now, last)
	}
	switch {
	case err == nil:
		t.handled = last
	case errors.Is(err, errYield) && !t.handled.Equal(t.warned):
		t.warned = t.handled
		t.log.Warn("Leaving the ticks to another scheduler", "job", t.def.Name, "error", err)
	case ctx.Err() == nil:
		t.log.Debug("Could not look at the last tick", "job", t.def.Name, "error", err)
	}
}

// distrust replaces a last tick that is later than the next one to come. It returns errYield if Redis' clock says that this
// scheduler's clock is behind.
func (t *timer) distrust(ctx context.Context, last, now, instead time.Time) error {
	if err := t.yields(ctx, last, func(redis time.Time) bool { return !t.tooLate(last, redis) }); err != nil {
		return err
	}
	replaced, err := t.jobs.DistrustTick(ctx, t.def, t.def.Schedule.Next(now), instead)
	if err != nil || !replaced { // another scheduler was faster
		return err
	}
	t.metrics.distrusted.WithLabelValues(t.def.Name).Inc()
	t.log.Warn("The last tick is later than the next one to come: a clock was wrong; it is ignored", "job", t.def.Name,
		"last", last.Format(tasks.TimestampLayout), "next", t.def.Schedule.Next(now).Format(tasks.TimestampLayout))
	return nil
}

// yields decides a dispute about the last tick. Wrong says whether this scheduler's clock is wrong if Redis' clock is right. In
// that case it returns errYield, as long as another scheduler goes on. Without that rule two schedulers whose clocks differ by
// more than an interval would replace each other's ticks in turn. Redis' clock does not rule alone: if no tick is enqueued for
// an interval, this scheduler enqueues again.
func (t *timer) yields(ctx context.Context, last time.Time, wrong func(redis time.Time) bool) error {
	redis, err := t.jobs.RedisTime(ctx)
	if err != nil || !wrong(redis) {
		return err
	}
	now := time.Now() // with its monotonic reading
	if !last.Equal(t.last) {
		t.last, t.moved = last, now
	}
	if now.Sub(t.moved) < t.def.Schedule.Interval(redis)+yieldMargin {
		return errYield
	}
	return nil
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
