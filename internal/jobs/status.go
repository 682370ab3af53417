// The state of job types: schedules, counts, pauses and active runs.

package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Counts are the numbers of runs in each state.
type Counts struct {
	Active, Waiting, Completed, Failed int
	// Delayed counts the runs that wait for their next attempt.
	Delayed int
}

// countsOf returns the counts of a queue.
func countsOf(info *asynq.QueueInfo) Counts {
	return Counts{
		Active: info.Active, Waiting: info.Pending, Completed: info.Completed,
		Failed: info.Archived, Delayed: info.Retry + info.Scheduled,
	}
}

func (c *Counts) add(o Counts) {
	c.Active += o.Active
	c.Waiting += o.Waiting
	c.Completed += o.Completed
	c.Failed += o.Failed
	c.Delayed += o.Delayed
}

// Active is an active run.
type Active struct {
	ID string
	// Data is the fields of the run's payload as JSON, or null if the payload is not valid.
	Data json.RawMessage
	// Progress is in percent.
	Progress int
}

// Status is the state of some job types at the time of the call.
type Status struct {
	Repeatable []Repeatable
	Counts     Counts
	// Paused is true if all of them are paused.
	Paused bool
	Active []Active
}

// Status returns the state of the given job types together. It also returns an error if ctx ends first.
func (j *Jobs) Status(ctx context.Context, jobs ...tasks.Definition) (Status, error) {
	s := Status{Paused: true}
	entries, err := j.Schedules(time.Now())
	if err != nil {
		return Status{}, err
	}
	// asynq's Inspector takes no context. Each of its calls ends in time, but all of them together can take too long.
	if ctx.Err() != nil {
		return Status{}, context.Cause(ctx)
	}
	queues, err := j.queues()
	if err != nil {
		return Status{}, err
	}
	for _, def := range jobs {
		if ctx.Err() != nil {
			return Status{}, context.Cause(ctx)
		}
		for _, entry := range entries {
			if entry.Job == def.Name {
				s.Repeatable = append(s.Repeatable, entry)
			}
		}
		info, err := j.queue(queues, def.Queue())
		if err != nil {
			return Status{}, err
		}
		s.Counts.add(countsOf(info))
		s.Paused = s.Paused && info.Paused
		if info.Active == 0 {
			continue
		}
		if ctx.Err() != nil {
			return Status{}, context.Cause(ctx)
		}
		active, err := j.active(ctx, def)
		if err != nil {
			return Status{}, err
		}
		s.Active = append(s.Active, active...)
	}
	return s, nil
}

// queues returns the names of the queues that asynq knows. A queue exists from its first task on.
func (j *Jobs) queues() ([]string, error) {
	queues, err := j.inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("listing queues: %w", err)
	}
	return queues, nil
}

// queue returns what asynq knows of a queue. One that is not in queues is empty, and not paused: Pause registers it first.
func (j *Jobs) queue(queues []string, name string) (*asynq.QueueInfo, error) {
	if !slices.Contains(queues, name) {
		return new(asynq.QueueInfo), nil
	}
	info, err := j.inspector.GetQueueInfo(name)
	if err != nil {
		return nil, fmt.Errorf("reading the queue %s: %w", name, err)
	}
	return info, nil
}

func (j *Jobs) active(ctx context.Context, def tasks.Definition) ([]Active, error) {
	list, err := j.inspector.ListActiveTasks(def.Queue())
	if err != nil {
		return nil, fmt.Errorf("listing active runs of %s: %w", def.Name, err)
	}
	var active []Active
	var runs []Job
	for _, info := range list {
		if id, err := tasks.ParseRunID(info.ID); err == nil {
			runs = append(runs, newJob(def, id, info))
		} else { // no run of ours: its worker will refuse it
			active = append(active, Active{ID: info.ID, Data: def.PayloadFields(info.Payload)})
		}
	}
	if err := j.addStates(ctx, runs); err != nil {
		return nil, err
	}
	for _, run := range runs {
		if run.State == StateActive || run.State == StateCompleted { // it has completed since it was listed
			active = append(active, Active{ID: run.ID.String(), Data: run.Data, Progress: run.Progress})
		}
	}
	return active, nil
}

// IsActive reports whether the task is active for asynq.
func (j *Jobs) IsActive(ctx context.Context, queue, id string) (bool, error) {
	state, err := j.rdb.HGet(ctx, asynqKey(queue, "t:"+id), "state").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("looking up %s: %w", id, err)
	}
	return state == asynq.TaskStateActive.String(), nil
}
