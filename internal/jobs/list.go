package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

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
	found := []Job{newJob(def, id, info)}
	err = j.addStates(ctx, found)
	return found[0], err
}

// newJob is what asynq knows of a run.
func newJob(def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo) Job {
	job := Job{
		ID: id, State: stateOf[info.State], Data: def.PayloadFields(info.Payload), Attempts: def.Attempts, Error: info.LastErr,
		Created: id.Reference,
	}
	if info.Retried == 0 && job.State != StateFailed {
		job.Error = "" // asynq's own word for what was no failure: a lease that expired, a run put back
	}
	switch job.State {
	case StateCompleted:
		job.Progress, job.Attempt, job.Ended = 100, attemptsOf(def, info), info.CompletedAt
		if json.Valid(info.Result) {
			job.Result = info.Result
		}
	case StateFailed:
		job.Attempt, job.Ended = attemptsOf(def, info), info.LastFailedAt
	case StateDelayed:
		job.NextAttempt = info.NextProcessAt
	}
	return job
}

// attemptsOf is how many attempts a run that has ended took, as far as asynq knows: of one that was retried by hand it counts
// those before as well.
func attemptsOf(def tasks.Definition, info *asynq.TaskInfo) int {
	return min(info.Retried+1, def.Attempts)
}

// addStates adds what the states of those runs know that have not ended, at the cost of one question.
func (j *Jobs) addStates(ctx context.Context, list []Job) error {
	type answer struct {
		job        *Job
		run, parts *redis.SliceCmd
	}
	var answers []answer
	pipeline := j.rdb.Pipeline()
	for i := range list {
		job := &list[i]
		if job.State == StateCompleted || job.State == StateFailed {
			continue
		}
		id := job.ID.String()
		answers = append(answers, answer{
			job, pipeline.HMGet(ctx, runKey(job.ID.Job, id), "progress", "started", "failures"),
			pipeline.HMGet(ctx, rangesKey(job.ID.Job, id), "n", "ended"),
		})
	}
	if len(answers) == 0 {
		return nil
	}
	if _, err := pipeline.Exec(ctx); err != nil {
		return fmt.Errorf("reading the states of runs: %w", err)
	}
	for _, a := range answers {
		started := number(a.run, 1)
		if started == 0 && a.job.State == StateActive { // it has not begun, or its state has ended since it was listed
			if err := j.refresh(ctx, a.job); err != nil {
				return err
			}
			continue
		}
		a.job.Progress = number(a.run, 0)
		if started > 0 {
			a.job.Started = time.UnixMilli(int64(started))
			a.job.Attempt = number(a.run, 2)
			if a.job.State != StateDelayed {
				a.job.Attempt++
			}
		}
		a.job.Ranges, a.job.RangesEnded = number(a.parts, 0), number(a.parts, 1)
	}
	return nil
}

// refresh looks again at a run whose state is not there: a run that has ended must not be shown as one that has not begun.
func (j *Jobs) refresh(ctx context.Context, job *Job) error {
	def, info, err := j.lookUp(job.ID)
	switch {
	case errors.Is(err, ErrNoJob) || ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	*job = newJob(def, job.ID, info)
	if job.State == StateActive && len(info.Result) > 0 { // asynq is about to record its end
		job.Progress = 100
	}
	return nil
}

// number is one field of an answer, which we wrote as a number; 0 when it is not there.
func number(c *redis.SliceCmd, field int) int {
	text, _ := c.Val()[field].(string)
	n, _ := strconv.Atoi(text)
	return n
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
// twice, or not at all. It asks for what it can at the same time, as somebody waits for the answer.
func (j *Jobs) List(ctx context.Context, f Filter) (page []Job, total int, err error) {
	sections, err := j.sections(f)
	if err != nil {
		return nil, 0, err
	}
	first := (f.Page - 1) * f.PageSize // of this page, in all sections together
	parts := make([][]Job, len(sections))
	var asking errgroup.Group
	for i, s := range sections {
		from, to := max(0, first-total), min(s.size, first+f.PageSize-total)
		total += s.size
		if from < to {
			asking.Go(func() (err error) {
				parts[i], err = s.part(from, to, f.PageSize)
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		return nil, 0, err
	}
	page = slices.Concat(parts...)
	return page, total, j.addStates(ctx, page)
}

// part returns the runs of a section from one to before another; there are at most size between them.
func (s section) part(from, to, size int) ([]Job, error) {
	var part []Job
	// asynq's pages are of that size, too, but need not begin where the part does.
	for page := from / size; page*size < to; page++ {
		infos, err := s.list(s.def.Name, asynq.PageSize(size), asynq.Page(page+1))
		if err != nil {
			return nil, fmt.Errorf("listing runs of %s: %w", s.def.Name, err)
		}
		for i, info := range infos {
			if at := page*size + i; at < from || at >= to {
				continue
			}
			if id, err := tasks.ParseRunID(info.ID); err == nil { // else it is nobody's run
				part = append(part, newJob(s.def, id, info))
			}
		}
	}
	return part, nil
}

// sections returns those that the filter names, in the order in which they are listed.
func (j *Jobs) sections(f Filter) ([]section, error) {
	queues, err := j.queues()
	if err != nil {
		return nil, err
	}
	infos := make([]*asynq.QueueInfo, len(f.Jobs))
	var asking errgroup.Group
	for i, def := range f.Jobs {
		if !slices.Contains(queues, def.Name) {
			continue
		}
		asking.Go(func() (err error) {
			infos[i], err = j.queue(queues, def.Name)
			return err
		})
	}
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	of := make(map[State][]section)
	for i, info := range infos {
		if info == nil {
			continue
		}
		add := func(state State, size int, list func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error)) {
			of[state] = append(of[state], section{f.Jobs[i], size, list})
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
		if s.Paused, err = j.IsPaused(ctx, def); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
