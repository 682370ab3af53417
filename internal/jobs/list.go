package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// State is what a job does, in the words of the API.
type State string

// The states, in the order in which jobs are listed.
const (
	StateActive    State = "active"
	StateWaiting   State = "waiting"
	StateDelayed   State = "delayed"
	StateFailed    State = "failed"
	StateCompleted State = "completed"
)

// States are all states in that order.
func States() []State {
	return []State{StateActive, StateWaiting, StateDelayed, StateFailed, StateCompleted}
}

var stateOf = map[asynq.TaskState]State{
	asynq.TaskStateActive: StateActive, asynq.TaskStatePending: StateWaiting, asynq.TaskStateScheduled: StateDelayed,
	asynq.TaskStateRetry: StateDelayed, asynq.TaskStateArchived: StateFailed, asynq.TaskStateCompleted: StateCompleted,
}

// Job is one run with all that is known of it.
type Job struct {
	ID    tasks.RunID
	State State
	// Data is the fields of its payload as JSON.
	Data json.RawMessage
	// Progress is in percent.
	Progress int
	// Attempt is the current attempt, or the last one, of Attempts that it has; 0 when it has not begun.
	Attempt, Attempts int
	// Error is why the last attempt failed; "" when none did.
	Error string
	// Result is that of a completed run as JSON; nil otherwise.
	Result json.RawMessage
	// Ranges and RangesEnded count the ranges of a run that is cut and has not ended.
	Ranges, RangesEnded int
	// Created is the instant that the run belongs to, Started when its first attempt began, Ended when it completed or
	// failed, and NextAttempt when a delayed one is tried again. They are zero where they are not known.
	Created, Started, Ended, NextAttempt time.Time
}

// Find returns the run with the ID, or ErrNoJob.
func (j *Jobs) Find(ctx context.Context, id tasks.RunID) (Job, error) {
	def, info, err := j.lookUp(id)
	if err != nil {
		return Job{}, err
	}
	return j.describe(ctx, def, id, info)
}

// describe adds to what asynq knows of a run what its state knows.
func (j *Jobs) describe(ctx context.Context, def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo) (Job, error) {
	job := Job{
		ID: id, State: stateOf[info.State], Data: def.PayloadFields(info.Payload), Attempts: def.Attempts, Error: info.LastErr,
		Created: id.Reference,
	}
	switch job.State {
	case StateCompleted:
		job.Progress, job.Attempt, job.Ended = 100, info.Retried+1, info.CompletedAt
		if json.Valid(info.Result) {
			job.Result = info.Result
		}
		return job, nil
	case StateFailed:
		job.Attempt, job.Ended = info.Retried+1, info.LastFailedAt
		return job, nil
	case StateDelayed:
		job.NextAttempt = info.NextProcessAt
	}
	fields, err := j.rdb.HMGet(ctx, runKey(def.Name, id.String()), "progress", "started", "failures").Result()
	if err != nil {
		return Job{}, fmt.Errorf("reading the state of %s: %w", id, err)
	}
	number := func(i int) int64 { // numbers that we wrote
		text, _ := fields[i].(string)
		n, _ := strconv.ParseInt(text, 10, 64)
		return n
	}
	job.Progress = int(number(0))
	if started := number(1); started > 0 {
		job.Started = time.UnixMilli(started)
		job.Attempt = int(number(2))
		if job.State != StateDelayed {
			job.Attempt++
		}
	}
	state := RunState{rdb: j.rdb, id: id}
	cut, err := state.Cut(ctx)
	job.Ranges, job.RangesEnded = cut.Ranges, cut.Ended
	return job, err
}

// Filter says which runs are listed. Page counts from 1; PageSize is how many a page has.
type Filter struct {
	Jobs           []tasks.Definition
	States         []State
	Page, PageSize int
}

// section is a list of asynq's: one job type's runs in one state.
type section struct {
	def  tasks.Definition
	size int
	list func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
}

// List returns one page of the runs that the filter names, and how many there are in all: in the order of the states,
// within that of the job types, and within that in asynq's, the oldest first. What changes state meanwhile may be listed
// twice, or not at all.
func (j *Jobs) List(ctx context.Context, f Filter) (page []Job, total int, err error) {
	sections, err := j.sections(f)
	if err != nil {
		return nil, 0, err
	}
	skip := (f.Page - 1) * f.PageSize
	for _, s := range sections {
		total += s.size
		if skip >= s.size {
			skip -= s.size
			continue
		}
		// asynq's pages are of the same size, but need not begin where ours does.
		for number := skip/f.PageSize + 1; len(page) < f.PageSize && (number-1)*f.PageSize < s.size; number++ {
			infos, err := s.list(s.def.Name, asynq.PageSize(f.PageSize), asynq.Page(number))
			if err != nil {
				return nil, 0, fmt.Errorf("listing runs of %s: %w", s.def.Name, err)
			}
			for i, info := range infos {
				id, err := tasks.ParseRunID(info.ID)
				if (number-1)*f.PageSize+i < skip || len(page) == f.PageSize || err != nil { // or nobody's run
					continue
				}
				job, err := j.describe(ctx, s.def, id, info)
				if err != nil {
					return nil, 0, err
				}
				page = append(page, job)
			}
		}
		skip = 0
	}
	return page, total, nil
}

func (j *Jobs) sections(f Filter) ([]section, error) {
	queues, err := j.inspector.Queues()
	if err != nil {
		return nil, fmt.Errorf("listing queues: %w", err)
	}
	of := make(map[State][]section)
	for _, def := range f.Jobs {
		if !slices.Contains(queues, def.Name) {
			continue
		}
		info, err := j.inspector.GetQueueInfo(def.Name)
		if err != nil {
			return nil, fmt.Errorf("reading the queue of %s: %w", def.Name, err)
		}
		add := func(state State, size int, list func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error)) {
			of[state] = append(of[state], section{def, size, list})
		}
		add(StateActive, info.Active, j.inspector.ListActiveTasks)
		add(StateWaiting, info.Pending, j.inspector.ListPendingTasks)
		add(StateDelayed, info.Retry, j.inspector.ListRetryTasks)
		add(StateDelayed, info.Scheduled, j.inspector.ListScheduledTasks)
		add(StateFailed, info.Archived, j.inspector.ListArchivedTasks)
		add(StateCompleted, info.Completed, j.inspector.ListCompletedTasks)
	}
	var sections []section
	for _, state := range States() {
		if slices.Contains(f.States, state) {
			sections = append(sections, of[state]...)
		}
	}
	return sections, nil
}

// Scheduled is a job type's live schedule, with what has come of it.
type Scheduled struct {
	Repeatable
	// Previous is the latest tick that was dealt with; zero when there was none.
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
		status, err := j.Status(ctx, def)
		if err != nil {
			return nil, err
		}
		s.Paused = status.Paused
		list = append(list, s)
	}
	return list, nil
}
