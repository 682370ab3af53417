// Live schedules: those that a running scheduler shows.

package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Repeatable is a job type's live schedule.
type Repeatable struct {
	Job  string
	Spec string
	// Every is the time between two ticks. It is 0 if they are not evenly spaced.
	Every time.Duration
	// Next is the time of the next tick.
	Next time.Time
}

// Schedules returns the live schedules, at most one for each job type. If the schedulers differ, as during an upgrade, it
// returns the schedule with the earliest next tick.
func (j *Jobs) Schedules(now time.Time) ([]Repeatable, error) {
	entries, err := j.inspector.SchedulerEntries()
	if err != nil {
		return nil, fmt.Errorf("listing scheduler entries: %w", err)
	}
	var schedules []Repeatable
	for _, e := range entries {
		if !j.owns(e) {
			continue
		}
		// asynq's own Next is some seconds old. For intervals below a minute it is not aligned to the clock.
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

// owns reports whether a scheduler of this deployment shows the entry. asynq has one list for all that use the Redis.
func (j *Jobs) owns(entry *asynq.SchedulerEntry) bool {
	def, known := j.registry.Lookup(entry.Task.Type())
	return known && slices.ContainsFunc(entry.Opts, func(o asynq.Option) bool {
		return o.Type() == asynq.QueueOpt && o.Value() == def.Queue()
	})
}

// Scheduled is a job type's live schedule and where it is.
type Scheduled struct {
	Repeatable
	// Previous is the time of the latest tick that was handled. It is zero if none ever was.
	Previous time.Time
	// Paused is true while the job type is paused.
	Paused bool
}

// ListSchedules returns the live schedules, in the order of the registry.
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
