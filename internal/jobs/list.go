// Runs as the API lists and shows them: what asynq knows of their tasks, and what our keys know of their state.

package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// State is the state of a run, in the words of the API.
type State string

// The states, in the order of List.
const (
	StateActive    State = "active"
	StateWaiting   State = "waiting"
	StateDelayed   State = "delayed"
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
	StateCompleted State = "completed"
)

// Ended reports whether a run in the state has ended.
func (s State) Ended() bool { return s == StateFailed || s == StateCancelled || s == StateCompleted }

// cancelledError is asynq's error of a run that was cancelled. For asynq, and in Counts, such a run has failed.
const cancelledError = "cancelled"

// States returns all states, in the order of List.
func States() []State {
	return []State{StateActive, StateWaiting, StateDelayed, StateFailed, StateCancelled, StateCompleted}
}

var stateOf = map[asynq.TaskState]State{
	asynq.TaskStateActive: StateActive, asynq.TaskStatePending: StateWaiting, asynq.TaskStateScheduled: StateDelayed,
	asynq.TaskStateRetry: StateDelayed, asynq.TaskStateArchived: StateFailed, asynq.TaskStateCompleted: StateCompleted,
}

// Job is a run as the API shows it.
type Job struct {
	ID    tasks.RunID
	State State
	// Data is the fields of its payload as JSON.
	Data json.RawMessage
	// Progress is in percent.
	Progress int
	// Attempt is the number of the current attempt, or of the last one. It is 0 before the first. Attempts is how many the run
	// has.
	Attempt, Attempts int
	// Error is why the last attempt failed. It is "" if none did.
	Error string
	// TriggeredBy says who made the run, or retried it by hand last. Its Kind is "" if the previous release has triggered it.
	TriggeredBy Trigger
	// EndedAttempts are the attempts that have ended, those before a retry by hand included, oldest first.
	EndedAttempts []EndedAttempt
	// Rescues say which workers were lost during the run, and which went on, oldest first.
	Rescues []Rescue
	// Counts is what the run has done to its records, by now or in all. It is nil if that is not known. Total is how many records a run
	// that has not ended is to visit. It is 0 while that is not known.
	Counts *RecordCounts
	Total  int64
	// Result is the result of a completed run as JSON. It is nil in other states.
	Result json.RawMessage
	// Wait is what a run waits for: one that is active, or one that is snoozed. It is nil for others.
	Wait *Wait
	// Ranges and RangesEnded count the ranges of a split run that has not ended.
	Ranges, RangesEnded int
	// WorkerLost is true while an active run, or one of its ranges, has lost its worker.
	WorkerLost bool
	// RescueWithin is the longest time until what the lost worker had is put back into its queue. It is 0 if no worker is lost, and if the
	// time is not known.
	RescueWithin time.Duration
	// Created is the reference time. A delayed run's is in the future. Started is when the first attempt began, Ended when the run
	// completed or failed, and NextAttempt when a delayed run's first or next attempt is due. Each is zero if it is not known.
	Created, Started, Ended, NextAttempt time.Time

	endedSecond time.Time // when it ended, as asynq knows it
	reason      string    // the error of the last attempt, also if it did not fail
}

// Find returns the run with the ID. It can return ErrNoJob.
func (j *Jobs) Find(ctx context.Context, id tasks.RunID) (Job, error) {
	def, info, err := j.lookUp(ctx, id)
	if err != nil {
		return Job{}, err
	}
	found := []Job{newJob(def, id, info)}
	if err = j.addStates(ctx, found); err == nil {
		err = j.addRescues(ctx, found)
	}
	return found[0], err
}

// newJob returns what asynq knows of a run.
func newJob(def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo) Job {
	job := Job{
		ID: id, State: stateOf[info.State], Data: def.PayloadFields(info.Payload), Attempts: def.Attempts, Error: info.LastErr,
		Created: id.Reference, TriggeredBy: triggerOf(id, info.Headers),
	}
	job.reason = info.LastErr
	if info.Retried == 0 && job.State != StateFailed {
		job.Error = "" // asynq also writes one when nothing failed: a lease expired, or a run was snoozed
	}
	switch job.State {
	case StateCompleted:
		job.Progress, job.Attempt, job.Ended = 100, attemptsOf(def, info), info.CompletedAt
		if json.Valid(info.Result) {
			job.Result = info.Result
		}
	case StateFailed:
		job.Attempt, job.Ended = attemptsOf(def, info), info.LastFailedAt
		if info.LastErr == cancelledError {
			job.State = StateCancelled
		}
	case StateDelayed:
		job.NextAttempt = info.NextProcessAt
		if info.State == asynq.TaskStateScheduled {
			job.NextAttempt = id.Reference // asynq knows the next whole second
		}
	}
	job.endedSecond = job.Ended
	if job.State.Ended() && job.Ended.Before(job.Created) {
		job.Ended = job.Created // asynq knows the end in whole seconds, or not at all if it was archived before it began
	}
	return job
}

// attemptsOf returns how many attempts an ended run took, as far as asynq knows. asynq also counts the attempts before a retry
// by hand.
func attemptsOf(def tasks.Definition, info *asynq.TaskInfo) int {
	return min(info.Retried+1, def.Attempts)
}

// addStates adds what our keys know of the runs. It asks Redis once.
func (j *Jobs) addStates(ctx context.Context, list []Job) error {
	type answer struct {
		job         *Job
		run, ranges *redis.SliceCmd
		wait        *redis.StringCmd
	}
	if len(list) == 0 {
		return nil
	}
	var answers []answer
	records := make([]*redis.SliceCmd, len(list))
	pipeline := j.rdb.Pipeline()
	for i := range list {
		job := &list[i]
		records[i] = pipeline.HMGet(ctx, j.keys.task(job.ID), recordFields...)
		if job.State.Ended() {
			continue
		}
		answers = append(answers, answer{
			job, pipeline.HMGet(ctx, j.keys.run(job.ID), "progress", "started", "failures", "waiting", "waitingFrom", "counts"),
			pipeline.HMGet(ctx, j.keys.ranges(job.ID), "n", "ended", "counts", "complete"), pipeline.Get(ctx, j.keys.wait(job.ID.Job)),
		})
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("reading the states of runs: %w", err)
	}
	for i := range list {
		readRecord(&list[i], records[i])
	}
	for _, a := range answers {
		started := number(a.run, 1)
		if started == 0 && a.job.State == StateActive { // it has not begun, or has ended since it was listed
			if err := j.refresh(ctx, a.job); err != nil {
				return err
			}
			continue
		}
		a.job.Progress = number(a.run, 0)
		if wait, ok := readWait(a.wait); ok && wait.Run == a.job.ID.String() && a.job.State == StateActive {
			a.job.Wait = &wait
		}
		if started > 0 {
			a.job.Started = time.UnixMilli(int64(started))
			a.job.Attempt = number(a.run, 2)
			isSnoozed := number(a.run, 4) > 0 && a.job.State == StateDelayed
			if a.job.State != StateDelayed || isSnoozed {
				a.job.Attempt++
			}
			if isSnoozed {
				a.job.Wait = &Wait{
					Run: a.job.ID.String(), For: a.job.reason, Since: time.UnixMilli(int64(number(a.run, 3))).UTC(), Upstream: true,
				}
			}
		}
		a.job.Ranges, a.job.RangesEnded = number(a.ranges, 0), number(a.ranges, 1)
		readCounts(a.job, text(a.run, 5), text(a.ranges, 2), number(a.ranges, 3) == 1)
	}
	return nil
}

// refresh looks again at an active run without a state, so that a run that has just ended does not look as if it had not begun.
func (j *Jobs) refresh(ctx context.Context, job *Job) error {
	def, info, err := j.lookUp(ctx, job.ID)
	switch {
	case errors.Is(err, ErrNoJob) || ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	*job = newJob(def, job.ID, info)
	answer := j.rdb.HMGet(ctx, j.keys.task(job.ID), recordFields...)
	if err := answer.Err(); err != nil {
		return fmt.Errorf("reading the record of %s: %w", job.ID, err)
	}
	readRecord(job, answer)
	if job.State == StateActive && len(info.Result) > 0 { // asynq is about to record its end
		job.Progress = 100
	}
	return nil
}

// number returns one field of an answer, which is our own number. It returns 0 if the field is not there.
func number(c *redis.SliceCmd, field int) int {
	n, _ := strconv.Atoi(text(c, field))
	return n
}

// text returns one field of an answer. It returns "" if the field is not there.
func text(c *redis.SliceCmd, field int) string {
	value, _ := c.Val()[field].(string)
	return value
}

// Filter says which runs List returns.
type Filter struct {
	Jobs   []tasks.Definition
	States []State
	// Page counts from 1. PageSize is how many runs a page has.
	Page, PageSize int
}

// section is one of asynq's lists: the runs of one job type in one state.
type section struct {
	def  tasks.Definition
	size int
	list func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
}

// List returns one page of the runs that the filter selects, and how many it selects in all. First come those that have not ended,
// by state, then by job type, and waiting ones in the order in which they will run. Then come all that have ended, newest first.
// A run that changes state meanwhile can be there twice, or not at all. List asks Redis several questions at the same time,
// because a client waits for the answer.
func (j *Jobs) List(ctx context.Context, f Filter) (page []Job, total int, err error) {
	sections, ended, err := j.sections(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	first := (f.Page - 1) * f.PageSize // the page's first index in all sections together
	lists := make([][]Job, len(sections))
	var asking errgroup.Group
	for i, s := range sections {
		from, to := max(0, first-total), min(s.size, first+f.PageSize-total)
		total += s.size
		if from < to {
			asking.Go(func() (err error) {
				lists[i], err = s.slice(from, to, f.PageSize)
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		return nil, 0, err
	}
	page = slices.Concat(lists...)
	if err := j.addStates(ctx, page); err != nil {
		return nil, 0, err
	}
	if err := j.addRescues(ctx, page); err != nil {
		return nil, 0, err
	}
	newest, n, err := j.newest(ctx, ended, f.States, max(0, first-total), max(0, first+f.PageSize-total))
	return append(page, newest...), total + n, err
}

// newest returns the ended runs of the sections with an index of at least from and below to, newest first, and how many there are.
func (j *Jobs) newest(ctx context.Context, sections []section, states []State, from, to int) (list []Job, total int, err error) {
	lists := make([][]Job, len(sections))
	for _, s := range sections {
		total += s.size
	}
	// asynq's list of failed runs has the cancelled ones, too. To leave out either of them, all must be looked at. So must they for
	// an order by milliseconds, because asynq's is by seconds.
	mixed := slices.Contains(states, StateFailed) != slices.Contains(states, StateCancelled)
	all := mixed || total <= maxExact
	var asking errgroup.Group
	for i, s := range sections {
		oldest := 0 // asynq's lists have the oldest first
		if !all {
			oldest = max(0, s.size-to)
		}
		if oldest < s.size {
			asking.Go(func() (err error) {
				lists[i], err = s.slice(oldest, s.size, endedPage)
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		return nil, 0, err
	}
	list = slices.Concat(lists...)
	if mixed {
		list = slices.DeleteFunc(list, func(job Job) bool { return !slices.Contains(states, job.State) })
		total = len(list)
	}
	if err := j.addStates(ctx, list); err != nil {
		return nil, 0, err
	}
	slices.SortStableFunc(list, func(a, b Job) int {
		ended, before := a.endedSecond, b.endedSecond
		if all {
			ended, before = a.Ended, b.Ended
		}
		return cmp.Or(before.Compare(ended), strings.Compare(b.ID.String(), a.ID.String()))
	})
	return list[min(from, len(list)):min(to, len(list))], total, nil
}

const (
	// endedPage is how many ended runs one command lists.
	endedPage = 100
	// maxExact is up to how many ended runs are all looked at, to order them by milliseconds. By default there are 90.
	maxExact = 500
)

// slice returns the runs of a section with an index of at least from and below to. These are at most size.
func (s section) slice(from, to, size int) ([]Job, error) {
	var list []Job
	// asynq's pages have the same size, but need not begin at from.
	for page := from / size; page*size < to; page++ {
		infos, err := s.list(s.def.Queue(), asynq.PageSize(size), asynq.Page(page+1))
		if err != nil && !notFound(err) { // a queue that asynq does not know is about to be registered
			return nil, fmt.Errorf("listing runs of %s: %w", s.def.Name, err)
		}
		for i, info := range infos {
			if at := page*size + i; at < from || at >= to {
				continue
			}
			if id, err := tasks.ParseRunID(info.ID); err == nil { // otherwise it is no run of ours
				list = append(list, newJob(s.def, id, info))
			}
		}
	}
	return list, nil
}

// sections returns the sections that the filter selects: those of runs that have not ended, in the order of List, and the others.
func (j *Jobs) sections(ctx context.Context, f Filter) (live, ended []section, err error) {
	var names []string
	for _, def := range f.Jobs {
		names = append(names, def.Queue())
	}
	queues, err := j.readQueues(ctx, names...)
	if err != nil {
		return nil, nil, err
	}
	of := make(map[State][]section)
	for i, queue := range queues {
		add := func(state State, size int, list func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error)) {
			of[state] = append(of[state], section{f.Jobs[i], size, list})
		}
		add(StateActive, queue.active, j.inspector.ListActiveTasks)
		add(StateWaiting, queue.pending, j.inspector.ListPendingTasks)
		add(StateDelayed, queue.retry, j.inspector.ListRetryTasks)
		add(StateDelayed, queue.scheduled, j.inspector.ListScheduledTasks)
		if slices.Contains(f.States, StateFailed) || slices.Contains(f.States, StateCancelled) {
			ended = append(ended, section{f.Jobs[i], queue.archived, j.inspector.ListArchivedTasks})
		}
		if slices.Contains(f.States, StateCompleted) {
			ended = append(ended, section{f.Jobs[i], queue.completed, j.inspector.ListCompletedTasks})
		}
	}
	for _, state := range States() {
		if slices.Contains(f.States, state) {
			live = append(live, of[state]...)
		}
	}
	return live, ended, nil
}
