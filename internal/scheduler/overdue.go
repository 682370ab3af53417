package scheduler

import (
	"context"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// watchInterval is how often overdue ticks are looked for.
	watchInterval = 500 * time.Millisecond
	// overdueAfter is how long after its instant a tick counts as overdue: asynq's Scheduler, here or in another process,
	// has had its time by then.
	overdueAfter = time.Second
	// notableLateness is from when on the log calls a tick overdue.
	notableLateness = 3 * time.Second
)

// watch sees to the ticks that asynq's Scheduler leaves out: it forgets those for which Redis was away, and those at
// which no scheduler lived. Of several that are overdue only the latest is enqueued. It returns when ctx ends.
func (s *Scheduler) watch(ctx context.Context, scheduler *asynq.Scheduler, e *entry) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	schedule := e.def.Schedule
	first := schedule.Slot(e.registered)
	// Below a minute asynq counts from the second of the registration.
	aligned := schedule.Cron != "" || schedule.Every >= time.Minute || first.Equal(e.registered.Truncate(time.Second))
	var started, failing bool
	handled := first.Add(-1) // up to here there is nothing to ask Redis for
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if !aligned && schedule.Slot(now).After(first) {
			s.realign(scheduler, e)
			aligned = true
		}
		slot := schedule.Slot(now.Add(-overdueAfter))
		if started && !slot.After(handled) {
			continue
		}
		err := s.catchUp(ctx, e, first, slot)
		if err == nil {
			started, failing, handled = true, false, slot
		} else if ctx.Err() == nil && !failing {
			failing = true
			s.log.Warn("Could not look for overdue ticks, trying again", "job", e.def.Name, "error", err)
		}
	}
}

// catchUp enqueues the tick at slot if nobody has dealt with it. On a system that never had a tick the first one is
// the one after first.
func (s *Scheduler) catchUp(ctx context.Context, e *entry, first, slot time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	if err := s.jobs.FirstTick(ctx, e.def, first); err != nil {
		return err
	}
	last, err := s.jobs.LastTick(ctx, e.def)
	if err != nil || !last.Before(slot) {
		return err
	}
	ctx, span := s.startSpan(ctx, tasks.TickID(e.def.Name, slot))
	tick, err := s.jobs.EnqueueTick(ctx, e.def, slot)
	telemetry.EndSpan(span, err)
	if err != nil {
		return err
	}
	log := telemetry.LogTrace(ctx, s.log).With("job", e.def.Name, "tick", slot.Format(tasks.TimestampLayout), "late", time.Since(slot).Round(time.Millisecond).String())
	what, overdue := "Tick", time.Since(slot) > notableLateness
	if overdue {
		what = "Overdue tick"
	}
	s.metrics.tick(e.def, tick, overdue)
	switch {
	case tick.ServedBy != "":
		log.Info(what+" served by a run that still waits", "jobId", tick.ServedBy)
	case tick.Due:
		log.Info(what+" enqueued", "jobId", tasks.TickID(e.def.Name, slot).String())
	}
	return nil
}

// realign registers the entry anew, at the beginning of an interval, so that it fires in whole intervals from now on.
func (s *Scheduler) realign(scheduler *asynq.Scheduler, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := scheduler.Unregister(e.id)
	if err == nil {
		err = e.register(scheduler)
	}
	if err != nil { // watch still sees to every tick, a little late
		s.log.Warn("Could not align the schedule to the clock", "job", e.def.Name, "error", err)
	}
}
