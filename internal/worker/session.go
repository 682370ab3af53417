package worker

import (
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
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// maxRecoveries ends a run that takes its workers down with it.
	maxRecoveries = 5
	// recordTimeout bounds one try at writing to Redis what a run has come to, and recordPause is between two.
	recordTimeout = 3 * time.Second
	recordPause   = 200 * time.Millisecond
	// abandonTimeout is how long a processor may take to return after its context has ended.
	abandonTimeout = time.Second
)

// session is the time for which a consumer holds its lease, and the asynq.Handler of that time.
//
// A run is asked to stop (stopping is closed), and when it does not its context ends. Then its handler does not return
// but waits for asynq to push the run back to the queue (released), because for asynq every return is the end of an
// attempt.
type session struct {
	c   *consumer
	log *slog.Logger

	busy     atomic.Bool
	ended    chan string   // the IDs of runs whose end asynq is about to record
	yield    chan struct{} // has a value when the session had better end, for another one to go on
	stopping chan struct{}
	released chan struct{}
	working  context.Context // ends when runs are abandoned
	abandon  context.CancelCauseFunc

	mu       sync.Mutex
	running  map[string]chan struct{} // by run ID: closed when the attempt is over
	handlers sync.WaitGroup
}

// endedBuffer is more runs than can end while the consumer looks at one that did.
const endedBuffer = 64

func newSession(c *consumer) *session {
	s := &session{
		c: c, log: c.log,
		ended: make(chan string, endedBuffer), yield: make(chan struct{}, 1),
		stopping: make(chan struct{}), released: make(chan struct{}),
		running: make(map[string]chan struct{}),
	}
	s.working, s.abandon = context.WithCancelCause(context.Background())
	return s
}

// stop asks what runs to stop, and returns when it has. After a lost lease it has no time to do so by itself.
func (s *session) stop(reason error) {
	s.mu.Lock()
	close(s.stopping)
	var running []chan struct{}
	for _, over := range s.running {
		running = append(running, over)
	}
	s.mu.Unlock()
	patience := s.c.w.options.DrainTimeout
	if errors.Is(reason, errLeaseLost) {
		patience = 0
	}
	for _, over := range running {
		if !within(patience, over) {
			s.abandon(reason)
			if !within(abandonTimeout, over) {
				s.log.Error("The processor does not return although its context has ended")
			}
		}
	}
}

// within reports whether done is closed before the time is over.
func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// release lets the handlers go that waited for their run to be given back.
func (s *session) release() {
	close(s.released)
	s.abandon(errShutdown)
	s.mu.Lock()
	stuck := len(s.running) > 0
	s.mu.Unlock()
	if !stuck {
		s.handlers.Wait()
	}
}

// ProcessTask implements asynq.Handler.
func (s *session) ProcessTask(ctx context.Context, task *asynq.Task) error {
	s.handlers.Add(1)
	defer s.handlers.Done()
	s.busy.Store(true)
	defer s.busy.Store(false)
	id, _ := asynq.GetTaskID(ctx)
	over := make(chan struct{})
	s.mu.Lock()
	if closed(s.stopping) { // asynq has taken it out of the queue a moment too late
		s.mu.Unlock()
		s.awaitRelease(ctx)
		return errGivenBack
	}
	s.running[id] = over
	s.mu.Unlock()

	err := s.attempt(ctx, id, task)

	givenBack := errors.Is(err, errGivenBack)
	if !givenBack {
		s.ended <- id
	}
	s.mu.Lock()
	delete(s.running, id)
	s.mu.Unlock()
	close(over)
	if givenBack {
		s.end()
		s.awaitRelease(ctx)
	}
	return err
}

// end asks the consumer to end the session.
func (s *session) end() {
	select {
	case s.yield <- struct{}{}:
	default: // it has been asked
	}
}

// awaitRelease waits until asynq has pushed the run back to the queue, or is done with it because its own lease of the
// task expired or the task was cancelled.
func (s *session) awaitRelease(ctx context.Context) {
	select {
	case <-s.released:
	case <-ctx.Done():
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// errGivenBack says that the run is to be pushed back to the queue.
var errGivenBack = errors.New("given back")

// permanentError is a failure that asynq must not try again.
type permanentError struct{ error }

// Is makes asynq archive the task.
func (permanentError) Is(target error) bool { return target == asynq.SkipRetry }

// Unwrap returns the reason.
func (e permanentError) Unwrap() error { return e.error }

// attempt is one attempt at the run of a task. It returns nil when the run is complete, errGivenBack when it shall go
// on elsewhere, and otherwise what asynq shall record.
func (s *session) attempt(taskCtx context.Context, taskID string, task *asynq.Task) error {
	log := s.log.With("jobId", taskID)
	def := s.c.def
	id, err := tasks.ParseRunID(taskID)
	if err == nil && id.Job != def.Name {
		err = fmt.Errorf("job id %q is not one of %s", taskID, def.Name)
	}
	if err != nil {
		return s.refuse(log, err)
	}
	payload, err := def.DecodePayload(task.Payload())
	if err != nil {
		return s.refuse(log, fmt.Errorf("invalid payload: %w", err))
	}
	if !s.c.w.slots.take() {
		return errGivenBack // another worker may have a slot; if none has, it is taken again when there is one here
	}
	defer s.c.w.slots.put()

	// The run's context ends with the task's, and with the session.
	ctx, cancel := context.WithCancelCause(taskCtx)
	defer cancel(nil)
	defer context.AfterFunc(s.working, func() { cancel(context.Cause(s.working)) })()

	var state *jobs.RunState
	owner := jobs.NewOwner()
	err = s.insist(ctx, log, func(ctx context.Context) (err error) {
		if err = s.c.w.jobs.Begin(ctx, id, payload.Kind()); err == nil {
			state, err = s.c.w.jobs.OpenRun(ctx, id, owner)
		}
		return err
	})
	if err != nil {
		return errGivenBack
	}
	if state.Recovered {
		log.Warn("Recovered run from a dead worker", "recoveries", state.Recoveries)
		if state.Recoveries > maxRecoveries {
			return s.fail(ctx, log, state, permanentError{fmt.Errorf("given up: %d workers died or lost Redis during this run", state.Recoveries)})
		}
	}
	retried, _ := asynq.GetRetryCount(taskCtx)
	run := &Run{
		ID: id, Definition: def, Payload: payload, Attempt: retried + 1, Checkpoint: state.Checkpoint,
		Stop: s.stopping, Log: log, state: state,
	}
	overdue := fmt.Errorf("exceeded its maximum duration of %s", def.MaxDuration)
	limited, end := context.WithDeadlineCause(ctx, state.Started.Add(def.MaxDuration), overdue)
	defer end()
	result, err := s.process(limited, run)

	switch {
	case err == nil:
		return s.complete(ctx, log, state, task, result)
	case context.Cause(limited) == overdue: //nolint:errorlint // this very error, not one like it
		return s.fail(ctx, log, state, permanentError{overdue})
	case errors.Is(err, ErrSuperseded):
		log.Warn("The run was taken over by another worker")
		return errGivenBack
	case ctx.Err() != nil || errors.Is(err, ErrStopped):
		return s.giveBack(ctx, log, state)
	case run.Attempt >= def.Attempts:
		return s.fail(ctx, log, state, permanentError{err})
	}
	log.Warn(def.Title+" job failed, will be tried again", "attempt", run.Attempt, "attempts", def.Attempts,
		"retryIn", def.RetryDelay(run.Attempt).String(), "error", err)
	if given := s.insist(ctx, log, state.GiveBack); given != nil && ctx.Err() != nil {
		return errGivenBack
	}
	return err
}

// process calls the processor, and makes a panic an error.
func (s *session) process(ctx context.Context, run *Run) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v", x)
			run.Log.Error("The processor panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return s.c.w.processors[s.c.def.Name](ctx, run)
}

// refuse fails a task that can never be a run of this job type.
func (s *session) refuse(log *slog.Logger, err error) error {
	log.Error(s.c.def.Title+" job failed", "error", err)
	return permanentError{err}
}

// fail ends a run for good.
func (s *session) fail(ctx context.Context, log *slog.Logger, state *jobs.RunState, err error) error {
	log.Error(s.c.def.Title+" job failed", "error", err)
	if closed := s.insist(ctx, log, state.Close); closed != nil {
		return errGivenBack
	}
	return err
}

// complete records a result. Only the run's owner may: asynq would write it to whatever has the run's ID by now.
func (s *session) complete(ctx context.Context, log *slog.Logger, state *jobs.RunState, task *asynq.Task, result any) error {
	data, err := json.Marshal(result)
	if err != nil {
		return s.fail(ctx, log, state, permanentError{fmt.Errorf("encoding the result: %w", err)})
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
	return nil
}

// giveBack keeps the run's state for whoever takes it next.
func (s *session) giveBack(ctx context.Context, log *slog.Logger, state *jobs.RunState) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := state.GiveBack(ctx); err != nil {
		log.Debug("Could not give the run's state back", "error", err)
	} else {
		log.Info("Run given back, it will go on where it got to")
	}
	return errGivenBack
}

// insist calls f until it succeeds, the run is superseded or ctx ends: a Redis that is away is waited for.
func (s *session) insist(ctx context.Context, log *slog.Logger, f func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		err := f(try)
		cancel()
		if err == nil || errors.Is(err, jobs.ErrSuperseded) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		log.Debug("Could not record the run's state, trying again", "error", err)
		pause(ctx, recordPause, nil)
	}
}
