// The state of job types: schedules, counts, pauses and active runs.

package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Counts are the numbers of runs in each state.
type Counts struct {
	Active, Waiting, Completed, Failed int
	// Delayed counts the runs that wait until their start time, or until their next attempt.
	Delayed int
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
	entries, err := j.Schedules(ctx, time.Now())
	if err != nil {
		return Status{}, err
	}
	var names []string
	for _, def := range jobs {
		names = append(names, def.Queue())
	}
	queues, err := j.readQueues(ctx, names...)
	if err != nil {
		return Status{}, err
	}
	for i, def := range jobs {
		for _, entry := range entries {
			if entry.Job == def.Name {
				s.Repeatable = append(s.Repeatable, entry)
			}
		}
		s.Counts.add(queues[i].counts())
		s.Paused = s.Paused && queues[i].paused
		if queues[i].active == 0 {
			continue
		}
		active, err := j.active(ctx, def)
		if err != nil {
			return Status{}, err
		}
		s.Active = append(s.Active, active...)
	}
	return s, nil
}

func (j *Jobs) active(ctx context.Context, def tasks.Definition) ([]Active, error) {
	if ctx.Err() != nil { // asynq's Inspector takes no context
		return nil, context.Cause(ctx)
	}
	list, err := j.inspector.ListActiveTasks(def.Queue())
	if err != nil && !notFound(err) { // a queue that asynq does not know is about to be registered
		return nil, fmt.Errorf("listing active runs of %s: %w", def.Name, err)
	}
	var active []Active
	var runs []Job
	for _, info := range list {
		if id, err := tasks.ParseRunID(info.ID); err == nil {
			runs = append(runs, newJob(def, id, info))
		} else if info.ID != "" { // no run of ours: its worker will refuse it. asynq lists a task without its hash as ""
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
