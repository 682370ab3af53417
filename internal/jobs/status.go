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
	// Delayed is what waits for a retry.
	Delayed int
}

// countsOf are those of a queue.
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

// Active is a run that is being worked on.
type Active struct {
	ID string
	// Data is the fields of the run's payload as JSON; null for what is no payload.
	Data json.RawMessage
	// Progress is in percent.
	Progress int
}

// Status is the state of some job types as Redis tells it at the time of asking.
type Status struct {
	Repeatable []Repeatable
	Counts     Counts
	// Paused is true when all of them are paused.
	Paused bool
	Active []Active
}

// Status returns the state of the given job types together.
func (j *Jobs) Status(ctx context.Context, jobs ...tasks.Definition) (Status, error) {
	s := Status{Paused: true}
	entries, err := j.Schedules(time.Now())
	if err != nil {
		return Status{}, err
	}
	// asynq's Inspector knows no context: each of its questions ends in time, but not all of them together.
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
		info, err := j.queue(queues, def.Name)
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

// queues returns the names of the queues that there are: a queue comes to be with its first task.
func (j *Jobs) queues() ([]string, error) {
	queues, err := j.inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("listing queues: %w", err)
	}
	return queues, nil
}

// queue returns what asynq knows of a queue: nothing of one that is not among those that there are, and cannot be paused
// either, as a queue is registered before that.
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
	list, err := j.inspector.ListActiveTasks(def.Name)
	if err != nil {
		return nil, fmt.Errorf("listing active runs of %s: %w", def.Name, err)
	}
	var active []Active
	var runs []Job
	for _, info := range list {
		if id, err := tasks.ParseRunID(info.ID); err == nil {
			runs = append(runs, newJob(def, id, info))
		} else { // not a run of ours, as its worker will find
			active = append(active, Active{ID: info.ID, Data: def.PayloadFields(info.Payload)})
		}
	}
	if err := j.addStates(ctx, runs); err != nil {
		return nil, err
	}
	for _, run := range runs {
		if run.State == StateActive || run.State == StateCompleted { // just now
			active = append(active, Active{ID: run.ID.String(), Data: run.Data, Progress: run.Progress})
		}
	}
	return active, nil
}

// IsActive reports whether asynq counts the task among those of the queue that are being worked on.
func (j *Jobs) IsActive(ctx context.Context, queue, id string) (bool, error) {
	state, err := j.rdb.HGet(ctx, asynqKey(queue, "t:"+id), "state").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("looking up %s: %w", id, err)
	}
	return state == asynq.TaskStateActive.String(), nil
}
