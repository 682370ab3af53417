// An attempt at a run and one at a range are the same algorithm. It writes our state first. asynq's follows when the handler
// returns.

package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// maxRescues bounds the rescues of a run or a range. More of them mean that it kills its workers.
	maxRescues = 5
	// maxSnoozed is how long a run is snoozed that no worker understands. Upgrading all workers takes less.
	maxSnoozed = time.Hour
	// snoozeTime is how long a snoozed run waits until a worker can take it again.
	snoozeTime = 5 * time.Second
	// maxWait bounds how long a run waits for what is away, and makes no progress, before it fails.
	maxWait = 24 * time.Hour
	// defaultWait is how long a run is snoozed if its error does not say it.
	defaultWait = time.Minute
	// retryRounding makes the time of a retry right on average: asynq rounds it down to whole seconds.
	retryRounding = 500 * time.Millisecond
	// cancelInterval is how often an attempt at a run looks whether the run was cancelled.
	cancelInterval = 250 * time.Millisecond

	// recordTimeout bounds one try to change the state in Redis, and recordInterval is the time between two tries.
	recordTimeout  = 3 * time.Second
	recordInterval = 200 * time.Millisecond
	// notableRetrying is how long the tries go on before the log warns of it.
	notableRetrying = 10 * time.Second
)

// errCancelled is the reason of a cancelled run.
var errCancelled = errors.New("cancelled")

// errSnoozed is the error of a snoozed attempt. asynq tries the task again later, at no cost.
var errSnoozed = errors.New("snoozed")

// snoozed is an errSnoozed that says for how long.
type snoozed struct {
	error
	wait time.Duration
}

// Is makes it an errSnoozed.
func (snoozed) Is(target error) bool { return target == errSnoozed }

// Unwrap returns the reason.
func (e snoozed) Unwrap() error { return e.error }

// failedAttempt is the error of a failed attempt that another one follows.
type failedAttempt struct {
	error
	number int // counts from 1
}

// Unwrap returns the error.
func (e failedAttempt) Unwrap() error { return e.error }

// retryDelay implements asynq.RetryDelayFunc: it returns the wait after an attempt that ended with the error. There is none
// after an end that was not the task's fault.
func (c *consumer) retryDelay(_ int, err error, _ *asynq.Task) time.Duration {
	var failed failedAttempt
	var later snoozed
	switch {
	case errors.As(err, &failed):
		return c.def.RetryDelay(failed.number) + retryRounding
	case errors.As(err, &later):
		return later.wait + time.Second // never earlier: an upstream that asked for this counts
	}
	return 0
}

// state is what Redis keeps of a run or a range. Its methods return jobs.ErrFenced if another attempt owns it by now.
type state interface {
	Save(ctx context.Context, checkpoint []byte, p jobs.Progress) error
	FailAttempt(ctx context.Context) error
	Release(ctx context.Context) error
	Wait(ctx context.Context, until time.Time) (since time.Time, err error)
	Complete(ctx context.Context, result []byte) error
	Fail(ctx context.Context, reason error) error
}

// attempt is one try at a task, which is a run or a range.
type attempt struct {
	s      *session
	c      *consumer
	task   *asynq.Task
	taskID string
	place  func() // frees the attempt's place among the worker's handlers

	id        tasks.RunID
	index     int // of the range
	owner     string
	state     state
	run       *jobs.RunState   // of an attempt at a run
	part      *jobs.RangeState // of an attempt at a range
	began     time.Time
	counts    atomic.Pointer[jobs.RecordCounts]
	total     atomic.Int64 // records to visit; 0 while that is not known
	failed    atomic.Pointer[[]jobs.FailedRecord]
	traceID   string
	found     jobs.Opened
	cancelled bool                    // the run was cancelled before the attempt began
	spec      []byte                  // of the range
	ranges    jobtype.Ranges          // of the run
	end       context.CancelCauseFunc // ends the attempt's context
	log       *slog.Logger
}

func newAttempt(s *session, task *asynq.Task, taskID string, place func()) *attempt {
	return &attempt{s: s, c: s.c, task: task, taskID: taskID, place: place, owner: jobs.NewOwner(s.c.w.id), began: time.Now()}
}

// do makes the attempt. It returns nil if nothing is left to do, errReleased if the task goes back to its queue, and otherwise
// the error that asynq records.
func (a *attempt) do(ctx context.Context) (err error) {
	a.log = a.c.log.With("jobId", a.taskID)
	// The context ends when asynq ends the task's, when the session abandons the attempt, and when the attempt is fenced.
	ctx, a.end = context.WithCancelCause(ctx)
	defer a.end(nil)
	defer context.AfterFunc(a.s.working, func() { a.end(context.Cause(a.s.working)) })()
	if err := a.identify(); err != nil {
		return a.refuse(ctx, err)
	}
	ctx, span := a.startSpan(ctx)
	defer func() { endSpan(span, err) }()
	if span.SpanContext().HasTraceID() {
		a.traceID = span.SpanContext().TraceID().String()
	}
	a.log = telemetry.LogTrace(ctx, a.log)
	payload, err := a.c.def.DecodePayload(a.task.Payload())
	newer := new(tasks.NewerVersionError)
	understood := !errors.As(err, &newer)
	if err != nil && understood && a.c.unit == unitRun {
		return a.refuse(ctx, fmt.Errorf("invalid payload: %w", err))
	}
	if !understood {
		return a.notUnderstood(ctx, newer)
	}
	if opened := a.open(ctx, payload); opened != nil {
		return a.notOpened(opened)
	}
	if a.found.Rescued {
		a.c.metrics.rescues[string(a.c.unit)].Inc()
		a.log.Warn("Recovered "+string(a.c.unit)+" from a dead worker", "recoveries", a.found.Rescues)
	}
	switch {
	case a.found.Rescues > maxRescues:
		err := fmt.Errorf("given up: %d workers died or lost Redis during this %s", a.found.Rescues, a.c.unit)
		return a.fail(ctx, jobtype.Permanent(err))
	case a.cancelled:
		return a.fail(ctx, jobtype.Permanent(errCancelled))
	case err != nil:
		return a.fail(ctx, jobtype.Permanent(fmt.Errorf("invalid payload: %w", err)))
	}
	return a.work(ctx, payload)
}

// identify reads the task's ID.
func (a *attempt) identify() (err error) {
	if a.c.unit == unitRange {
		var id tasks.RangeID
		if id, err = tasks.ParseRangeID(a.taskID); err == nil {
			a.id, a.index = id.Run, id.Index
			a.log = a.c.log.With("jobId", a.id.String(), "range", a.index)
		}
	} else {
		a.id, err = tasks.ParseRunID(a.taskID)
	}
	if err == nil && a.id.Job != a.c.def.Name {
		err = fmt.Errorf("%s id %q is not one of %s", a.c.unit.idName(), a.taskID, a.c.def.Name)
	}
	return err
}

// open makes the attempt the owner of its run or range.
func (a *attempt) open(ctx context.Context, payload tasks.Payload) error {
	if a.c.unit == unitRange {
		return a.retry(ctx, func(ctx context.Context) error {
			opened, err := a.c.w.jobs.OpenRange(ctx, tasks.RangeID{Run: a.id, Index: a.index}, a.owner)
			if err == nil {
				a.part, a.state, a.found, a.spec = opened, opened, opened.Opened, opened.Spec
			}
			return err
		})
	}
	return a.retry(ctx, func(ctx context.Context) error {
		opened, err := a.c.w.jobs.StartRun(ctx, a.id, payload.UniqueKey(), a.owner)
		if err != nil {
			return err
		}
		a.run, a.state, a.found, a.cancelled = opened, opened, opened.Opened, opened.Cancelled
		a.ranges = &runRanges{attempt: a, state: opened, ended: make(chan struct{}, 1)}
		if opened.StartsOver {
			a.log.Warn("The run starts over: it was begun on another database")
		}
		if opened.New {
			a.c.metrics.startDelay.Observe(max(0, time.Since(a.id.Reference).Seconds()))
		}
		return nil
	})
}

// notOpened returns how an attempt ends that could not open its run or range.
func (a *attempt) notOpened(err error) error {
	if errors.Is(err, jobs.ErrNoRange) {
		a.log.Debug("Nothing left to do in a range")
		return nil
	}
	return errReleased
}

// work calls the handler, and records how it ended.
func (a *attempt) work(ctx context.Context, payload tasks.Payload) error {
	handling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopWatching := a.watchCancel(handling, cancel)
	defer stopWatching()
	defer a.hearOfRanges()()
	tooLong := fmt.Errorf("exceeded its maximum duration of %s", a.c.def.MaxDuration)
	limited, lift := context.WithDeadlineCause(handling, a.found.Started.Add(a.c.def.MaxDuration+a.found.Waited), tooLong)
	defer lift()

	result, err := a.handle(limited, &jobtype.Attempt{
		ID: a.id, Definition: a.c.def, Payload: payload, Number: a.found.Failures + 1, Retries: a.found.Retries,
		Checkpoint: a.found.Checkpoint, Range: a.spec, Stop: a.s.stopping, Save: a.save, Ranges: a.ranges, Observe: a.c.w.observer(a.c.def),
		Exhausted: a.place, Waiting: a.waiting, Permit: a.permit, Count: a.count, Total: a.total.Store, Failed: a.listFailed, Log: a.log,
	})
	stopWatching()
	number := a.found.Failures + 1
	wait := new(jobtype.WaitError)
	switch {
	case err == nil:
		return a.complete(ctx, result)
	case context.Cause(limited) == tooLong: //nolint:errorlint // this error itself, not one like it
		return a.fail(ctx, jobtype.Permanent(a.c.unit.tooLong(tooLong)))
	case errors.Is(context.Cause(handling), errCancelled):
		return a.fail(ctx, jobtype.Permanent(errCancelled))
	case errors.Is(context.Cause(ctx), jobs.ErrFenced) && a.c.unit == unitRun:
		a.log.Warn("The run was taken over by another worker")
		return errReleased
	case ctx.Err() != nil || a.s.stopped():
		return a.release(ctx)
	case errors.As(err, &wait):
		return a.wait(ctx, wait)
	case number >= a.c.def.Attempts || jobtype.IsPermanent(err):
		return a.fail(ctx, jobtype.Permanent(err))
	}
	a.log.Warn(a.c.unit.failed(a.c.def)+", will be tried again", "attempt", number, "attempts", a.c.def.Attempts,
		"retryIn", a.c.def.RetryDelay(number).String(), "error", err)
	a.ending(jobs.OutcomeFailed, err)
	switch recorded := a.retry(ctx, a.state.FailAttempt); {
	case errors.Is(recorded, jobs.ErrNoRange):
		return nil
	case recorded != nil:
		return errReleased
	}
	a.c.metrics.retries[string(a.c.unit)].Inc()
	return failedAttempt{err, number}
}

// hearOfRanges passes the announcement that all ranges have ended to an attempt at their run. The caller must call end.
func (a *attempt) hearOfRanges() (end func()) {
	ranges, ok := a.ranges.(*runRanges)
	if !ok {
		return func() {}
	}
	announcement := ranges.state.RangesEnded()
	a.c.w.split.Store(announcement, ranges.ended)
	return func() { a.c.w.split.CompareAndDelete(announcement, ranges.ended) }
}

// watchCancel ends the context of a run's handler with errCancelled when the run is cancelled. Calling stop ends the watch.
// Ranges need none: they find out when they save.
func (a *attempt) watchCancel(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	if a.c.unit == unitRange {
		return func() {}
	}
	watching, end := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for watching.Err() == nil {
			sleep(watching, cancelInterval)
			if cancelled, err := a.c.w.jobs.IsCancelled(watching, a.id); err == nil && cancelled {
				cancel(errCancelled)
				return
			}
		}
	})
	return func() {
		end()
		watch.Wait()
	}
}

// handle calls the handler, and turns a panic into an error.
func (a *attempt) handle(ctx context.Context, seen *jobtype.Attempt) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			a.log.Error("The processor panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return a.c.w.handlers[a.c.def.Name](ctx, seen)
}

// save is Attempt.Save. It ends the attempt's context if the attempt is fenced.
func (a *attempt) save(ctx context.Context, checkpoint []byte, percent int) error {
	return a.fence(a.state.Save(ctx, checkpoint, jobs.Progress{Percent: percent, Counts: a.counts.Load(), Total: a.total.Load()}))
}

// waiting is Attempt.Waiting.
func (a *attempt) waiting(ctx context.Context, wait jobs.Wait) {
	bounded, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := a.c.w.jobs.SetWait(bounded, a.id, wait); err != nil && ctx.Err() == nil {
		a.log.Debug("Could not say what the run waits for", "error", err)
	}
}

// permit is Attempt.Permit.
func (a *attempt) permit(ctx context.Context) (end func(), err error) {
	if a.c.def.Rate.Calls == 0 {
		return func() {}, nil
	}
	asked := time.Now()
	waiting, stopped := a.s.untilStopped(ctx)
	defer stopped()
	end, err = a.c.w.jobs.TakePermit(waiting, a.c.def)
	a.c.metrics.rateWait.Observe(time.Since(asked).Seconds())
	return end, err
}

// fence ends the attempt's context if the error says that the attempt is fenced. It returns the error.
func (a *attempt) fence(err error) error {
	if errors.Is(err, jobs.ErrFenced) {
		a.end(err)
	}
	return err
}

// notUnderstood ends an attempt at a task that only a newer release understands, at no cost. It snoozes a run, for up to an
// hour. It releases a range, and backs off: a worker that understands it has split the run.
func (a *attempt) notUnderstood(ctx context.Context, reason error) error {
	if a.c.unit == unitRange {
		a.log.Warn("Leaving ranges to workers of a newer release", "reason", reason, "for", backOffTime.String())
		a.c.backOff()
		return errReleased
	}
	var run *jobs.RunState
	var since time.Time
	err := a.retry(ctx, func(ctx context.Context) (err error) {
		if run, err = a.c.w.jobs.OpenRun(ctx, a.id, a.owner); err == nil {
			since, err = run.Snooze(ctx)
		}
		return err
	})
	if err != nil {
		return errReleased
	}
	a.run, a.state, a.found = run, run, run.Opened
	if run.Cancelled {
		return a.fail(ctx, jobtype.Permanent(errCancelled))
	}
	if time.Since(since) > maxSnoozed {
		return a.fail(ctx, jobtype.Permanent(fmt.Errorf("no worker understood it for %s: %w", maxSnoozed, reason)))
	}
	a.log.Warn("Run put back for workers of a newer release", "reason", reason, "retryIn", snoozeTime.String())
	if a.retry(ctx, run.Release) != nil {
		return errReleased
	}
	return snoozed{reason, snoozeTime}
}

// wait snoozes a run or a range, at no cost, because what it needs is away. It fails one that has made no progress for a day.
func (a *attempt) wait(ctx context.Context, reason *jobtype.WaitError) error {
	after := min(max(cmp.Or(reason.After, defaultWait), time.Second), maxWait)
	var since time.Time
	switch err := a.retry(ctx, func(ctx context.Context) (err error) {
		since, err = a.state.Wait(ctx, time.Now().Add(after))
		return err
	}); {
	case errors.Is(err, jobs.ErrNoRange):
		return nil
	case err != nil:
		return errReleased
	}
	if time.Since(since) > maxWait {
		return a.fail(ctx, jobtype.Permanent(fmt.Errorf("waited for %s: %w", maxWait, reason.Err)))
	}
	if a.retry(ctx, a.state.Release) != nil {
		return errReleased
	}
	a.log.Warn(a.c.unit.title()+" snoozed, what it needs is away", "reason", reason.Err, "retryIn", after.String())
	return snoozed{reason.Err, after}
}

// refuse fails a task that is no run, or no range, of this job type.
func (a *attempt) refuse(ctx context.Context, err error) error {
	a.log.Error(a.c.def.Title+" job failed", "error", err)
	if a.c.unit == unitRun && a.id.Job == a.c.def.Name {
		ended := a.endedNow(jobs.OutcomeFailed, err)
		if a.retry(ctx, func(ctx context.Context) error { return a.c.w.jobs.RecordRefused(ctx, a.id, a.source(), ended) }) != nil {
			return errReleased
		}
		signal(a.c.w.ended)
	}
	a.c.unit.countEnd(a.c.metrics, outcomeFailed, time.Time{})
	return jobtype.Permanent(err)
}

// fail ends a run or a range as failed. The run keeps the failure of its range, and asynq forgets the range's task.
func (a *attempt) fail(ctx context.Context, err error) error {
	if a.c.unit == unitRange {
		a.log.Error("A range failed", "attempts", a.found.Failures+1, "error", err)
		err = fmt.Errorf("after %d attempts: %w", a.found.Failures+1, err)
	} else {
		a.log.Error(a.c.def.Title+" job failed", "error", err)
	}
	outcome, ended := outcomeFailed, jobs.OutcomeFailed
	if errors.Is(err, errCancelled) {
		outcome, ended = outcomeCancelled, jobs.OutcomeCancelled
	}
	a.ending(ended, err)
	if recorded := a.conclude(ctx, outcome, func(ctx context.Context) error { return a.state.Fail(ctx, err) }); recorded != nil {
		return recorded
	}
	if a.c.unit == unitRange {
		return nil
	}
	return err
}

// complete ends a run or a range as completed, with its result.
func (a *attempt) complete(ctx context.Context, result any) error {
	data, err := json.Marshal(result)
	if err != nil {
		return a.fail(ctx, jobtype.Permanent(fmt.Errorf("encoding the result: %w", err)))
	}
	a.ending(jobs.OutcomeCompleted, nil)
	return a.conclude(ctx, outcomeCompleted, func(ctx context.Context) error { return a.state.Complete(ctx, data) })
}

// ending says how an attempt ends, before that is recorded.
func (a *attempt) ending(outcome jobs.Outcome, err error) {
	ended := a.endedNow(outcome, err)
	var failed []jobs.FailedRecord
	if list := a.failed.Load(); list != nil {
		failed = *list
	}
	switch {
	case a.run != nil:
		a.run.Attempt, a.run.Counts, a.run.Source, a.run.FailedRecords = &ended, a.counts.Load(), a.source(), failed
	case a.part != nil:
		a.part.Attempt, a.part.Counts, a.part.FailedRecords = &ended, a.counts.Load(), failed
	}
}

// source is what the run's entry in the history says of its task.
func (a *attempt) source() jobs.Source {
	return jobs.Source{Payload: a.task.Payload(), Headers: a.task.Headers(), TraceID: a.traceID}
}

func (a *attempt) endedNow(outcome jobs.Outcome, err error) jobs.EndedAttempt {
	ended := jobs.EndedAttempt{Number: a.found.Failures + 1, Started: a.began, Ended: time.Now(), Worker: a.c.w.id, Outcome: outcome}
	if err != nil {
		ended.Error = err.Error()
	}
	return ended
}

// count is Attempt.Count.
func (a *attempt) count(processed, updated, failed int64) {
	a.counts.Store(&jobs.RecordCounts{Processed: processed, Updated: updated, Failed: failed})
}

// listFailed is Attempt.Failed.
func (a *attempt) listFailed(records []jobs.FailedRecord) { a.failed.Store(&records) }

// conclude records how a run or a range ended, and counts that. If it cannot be recorded, the task is released, and the next
// attempt finds little left to do.
func (a *attempt) conclude(ctx context.Context, outcome string, record func(context.Context) error) error {
	switch err := a.retry(ctx, record); {
	case errors.Is(err, jobs.ErrNoRange):
		return nil
	case err != nil:
		return errReleased
	}
	a.c.unit.countEnd(a.c.metrics, outcome, a.found.Started)
	if a.c.unit == unitRun {
		signal(a.c.w.ended)
	}
	return nil
}

// release releases the run or range.
func (a *attempt) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	a.ending(jobs.OutcomeReleased, nil)
	switch err := a.state.Release(ctx); {
	case errors.Is(err, jobs.ErrNoRange):
		return nil
	case err != nil:
		a.log.Debug("Could not release the "+string(a.c.unit), "error", err)
	default:
		a.log.Info(a.c.unit.title() + " given back, it will go on where it got to")
	}
	return errReleased
}

// retry calls f until f succeeds, the attempt is fenced or ctx ends. So it waits for a Redis that does not answer. If that takes
// long, it logs one warning.
func (a *attempt) retry(ctx context.Context, f func(context.Context) error) error {
	begun, warned := time.Now(), false
	for {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		err := f(try)
		cancel()
		if err == nil || errors.Is(err, jobs.ErrFenced) {
			return a.fence(err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !warned && time.Since(begun) > notableRetrying {
			warned = true
			a.log.Warn("Redis does not serve the run's state, still trying", "error", err)
		} else {
			a.log.Debug("Redis did not serve the run's state, trying again", "error", err)
		}
		sleep(ctx, recordInterval)
	}
}
