// Live schedules, as the schedulers that run tell them.

package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Repeatable is a job type's live schedule.
type Repeatable struct {
	Job  string
	Spec string
	// Every is the time between two ticks, 0 when they are not evenly spaced.
	Every time.Duration
	// Next is the next tick.
	Next time.Time
}

// Schedules returns the live schedules, one for each job type that has one, however many schedulers there are. While
// schedulers differ, as during an upgrade, the schedule with the earliest tick is told.
func (j *Jobs) Schedules(now time.Time) ([]Repeatable, error) {
	entries, err := j.inspector.SchedulerEntries()
	if err != nil {
		return nil, fmt.Errorf("listing scheduler entries: %w", err)
	}
	var schedules []Repeatable
	for _, e := range entries {
		// asynq's own Next is some seconds old, and not aligned to the clock for intervals below a minute.
		next := Repeatable{Job: e.Task.Type(), Spec: e.Spec, Every: tasks.SpecEvery(e.Spec, now), Next: tasks.SpecNext(e.Spec, now)}
		i := slices.IndexFunc(schedules, func(s Repeatable) bool { return s.Job == next.Job })
		switch {
		case i < 0:
			schedules = append(schedules, next)
		case next.Next.Before(schedules[i].Next):
			schedules[i] = next
		}
	}
	return schedules, nil
}

// Scheduled is a job type's live schedule, with what has come of it.
type Scheduled struct {
	Repeatable
	// Previous is the latest tick that was handled; zero when there was none.
	Previous time.Time
	// Paused is true while the job type is.
	Paused bool
}

// ListSchedules returns the live schedules, in the order of the job types.
func (j *Jobs) ListSchedules(ctx context.Context) ([]Scheduled, error) {
	live, err := j.Schedules(time.Now())
	if err != nil {
		return nil, err
	}
	var list []Scheduled
	for _, def := range j.registry.All() {
		i := slices.IndexFunc(live, func(r Repeatable) bool { return r.Job == def.Name })
		if i < 0 {
			continue
		}
		s := Scheduled{Repeatable: live[i]}
		if s.Previous, err = j.LastTick(ctx, def); err != nil {
			return nil, err
		}
		if s.Paused, err = j.IsPaused(ctx, def); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
