package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// maxRecoveries ends a run, or a range, that takes its workers down with it.
	maxRecoveries = 5
	// maxPostponed is for how long a run is put back that no worker understands: an upgrade of all workers takes less.
	maxPostponed = time.Hour
	// postponeDelay is how long it then waits for another worker to have its turn.
	postponeDelay = 5 * time.Second
)

// errPostponed says that a task is to be tried again later, at no cost.
var errPostponed = errors.New("put back for a worker of a newer release")

// attempt is one attempt at the run of a task. It returns nil when the run is complete, errGivenBack when it shall go
// on elsewhere, and otherwise what asynq shall record.
func (c *consumer) attempt(taskCtx context.Context, s *session, task *asynq.Task) (err error) {
	taskID, _ := asynq.GetTaskID(taskCtx)
	def := c.def
	taskCtx, span := c.w.startSpan(taskCtx, "run "+def.Name, task,
		telemetry.AttributeJobType.String(def.Name), telemetry.AttributeJobID.String(taskID))
	defer func() { endSpan(span, err) }()
	log := telemetry.LogTrace(taskCtx, c.log.With("jobId", taskID))
	id, err := tasks.ParseRunID(taskID)
	if err == nil && id.Job != def.Name {
		err = fmt.Errorf("job id %q is not one of %s", taskID, def.Name)
	}
	if err != nil {
		return c.refuse(log, err)
	}
	payload, err := def.DecodePayload(task.Payload())
	if newer := new(tasks.NewerVersionError); errors.As(err, &newer) {
		return c.postpone(taskCtx, s, log, id, newer)
	}
	if err != nil {
		return c.refuse(log, fmt.Errorf("invalid payload: %w", err))
	}
	if !c.w.slots.take() {
		return errGivenBack // another worker may have a slot; if none has, it is taken again when there is one here
	}
	defer c.w.slots.put()

	ctx, end := s.context(taskCtx)
	defer end()
	var state *jobs.RunState
	owner := jobs.NewOwner()
	err = s.insist(ctx, log, func(ctx context.Context) (err error) {
		if err = c.w.jobs.Begin(ctx, id, payload.Kind()); err == nil {
			state, err = c.w.jobs.OpenRun(ctx, id, owner)
		}
		return err
	})
	if err != nil {
		return errGivenBack
	}
	if state.New {
		c.observeStart(id)
	}
	if state.Recovered {
		c.metrics.recoveries[unitRun].Inc()
		log.Warn("Recovered run from a dead worker", "recoveries", state.Recoveries)
		if state.Recoveries > maxRecoveries {
			return c.fail(ctx, s, log, state, permanentError{fmt.Errorf("given up: %d workers died or lost Redis during this run", state.Recoveries)})
		}
	}
	run := &Run{
		ID: id, Definition: def, Payload: payload, Attempt: state.Failures + 1, Checkpoint: state.Checkpoint,
		Stop: s.stopping, Log: log,
		save: state.Save, observe: c.w.observer(def), ranges: &runRanges{state: state, session: s, def: def, id: id, payload: task.Payload(), log: log},
	}
	if state.Cancelled {
		return c.fail(ctx, s, log, state, permanentError{errCancelled})
	}
	if state.Postponed && s.insist(ctx, log, state.Understand) != nil {
		return errGivenBack
	}
	working, release := s.cancellable(ctx, taskID)
	defer release()
	overdue := fmt.Errorf("exceeded its maximum duration of %s", def.MaxDuration)
	limited, lift := context.WithDeadlineCause(working, state.Started.Add(def.MaxDuration), overdue)
	defer lift()
	result, err := c.w.process(limited, run)

	switch {
	case err == nil:
		return c.complete(ctx, s, log, state, task, result)
	case context.Cause(limited) == overdue: //nolint:errorlint // this very error, not one like it
		return c.fail(ctx, s, log, state, permanentError{overdue})
	case errors.Is(context.Cause(working), errCancelled):
		return c.fail(ctx, s, log, state, permanentError{errCancelled})
	case errors.Is(err, ErrSuperseded):
		log.Warn("The run was taken over by another worker")
		return errGivenBack
	case ctx.Err() != nil || errors.Is(err, ErrStopped):
		return giveBack(ctx, log, "Run", state.GiveBack)
	case run.Attempt >= def.Attempts || isPermanent(err):
		return c.fail(ctx, s, log, state, permanentError{err})
	}
	log.Warn(def.Title+" job failed, will be tried again", "attempt", run.Attempt, "attempts", def.Attempts,
		"retryIn", def.RetryDelay(run.Attempt).String(), "error", err)
	if recorded := s.insist(ctx, log, state.FailAttempt); recorded != nil {
		return errGivenBack
	}
	c.metrics.retries[unitRun].Inc()
	return failedAttempt{err, run.Attempt}
}

// observeStart measures for how long a run that starts for the first time has waited. One that has failed before has waited
// for somebody to retry it.
func (c *consumer) observeStart(id tasks.RunID) {
	if before, err := c.w.jobs.HasFailed(id); err == nil && !before {
		c.metrics.startDelay.Observe(max(0, time.Since(id.Reference).Seconds()))
	}
}

// failedAttempt is the error of an attempt that another one follows.
type failedAttempt struct {
	error
	number int // counts from 1
}

// Unwrap returns the error.
func (e failedAttempt) Unwrap() error { return e.error }

// postpone puts a run back that only workers of a newer release understand. That costs it nothing, for an hour.
func (c *consumer) postpone(taskCtx context.Context, s *session, log *slog.Logger, id tasks.RunID, reason error) error {
	ctx, end := s.context(taskCtx)
	defer end()
	var state *jobs.RunState
	var since time.Time
	owner := jobs.NewOwner()
	err := s.insist(ctx, log, func(ctx context.Context) (err error) {
		if state, err = c.w.jobs.OpenRun(ctx, id, owner); err == nil {
			since, err = state.Postpone(ctx)
		}
		return err
	})
	if err != nil {
		return errGivenBack
	}
	if state.Cancelled {
		return c.fail(ctx, s, log, state, permanentError{errCancelled})
	}
	if time.Since(since) > maxPostponed {
		return c.fail(ctx, s, log, state, permanentError{fmt.Errorf("no worker understood it for %s: %w", maxPostponed, reason)})
	}
	log.Warn("Run put back for workers of a newer release", "reason", reason, "retryIn", postponeDelay.String())
	if s.insist(ctx, log, state.GiveBack) != nil {
		return errGivenBack
	}
	return fmt.Errorf("%w: %w", errPostponed, reason)
}

// process calls the processor, and makes a panic an error.
func (w *Worker) process(ctx context.Context, run *Run) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			run.Log.Error("The processor panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return w.processors[run.Definition.Name](ctx, run)
}

// refuse fails a task that can never be one of this job type's.
func refuse(log *slog.Logger, def tasks.Definition, err error) error {
	log.Error(def.Title+" job failed", "error", err)
	return permanentError{err}
}

// refuse fails a run that can never be one of this job type's.
func (c *consumer) refuse(log *slog.Logger, err error) error {
	c.metrics.runEnded(outcomeFailed, time.Time{})
	return refuse(log, c.def, err)
}

// fail ends a run for good.
func (c *consumer) fail(ctx context.Context, s *session, log *slog.Logger, state *jobs.RunState, err error) error {
	log.Error(c.def.Title+" job failed", "error", err)
	if closed := s.insist(ctx, log, state.Close); closed != nil {
		return errGivenBack
	}
	outcome := outcomeFailed
	if errors.Is(err, errCancelled) {
		outcome = outcomeCancelled
	}
	c.metrics.runEnded(outcome, state.Started)
	return err
}

// complete records a result. Only the run's owner may: asynq would write it to whatever has the run's ID by now.
func (c *consumer) complete(ctx context.Context, s *session, log *slog.Logger, state *jobs.RunState, task *asynq.Task, result any) error {
	data, err := json.Marshal(result)
	if err != nil {
		return c.fail(ctx, s, log, state, permanentError{fmt.Errorf("encoding the result: %w", err)})
	}
	err = s.insist(ctx, log, func(ctx context.Context) error {
		if err := state.Verify(ctx); err != nil {
			return err
		}
		if _, err := task.ResultWriter().Write(data); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	})
	if err == nil {
		err = s.insist(ctx, log, state.Close)
	}
	if err != nil {
		return errGivenBack // the next attempt finds little or nothing left to do
	}
	c.metrics.runEnded(outcomeCompleted, state.Started)
	return nil
}

// giveBack keeps the state of a run or range for whoever takes it next.
func giveBack(ctx context.Context, log *slog.Logger, what string, give func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := give(ctx); err != nil {
		log.Debug("Could not give the state back", "error", err)
	} else {
		log.Info(what + " given back, it will go on where it got to")
	}
	return errGivenBack
}
