package worker

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// ErrStopped is what a Processor returns after its run was asked to stop and has saved where it got to. It costs no
// attempt: the run goes on when a worker takes it again.
var ErrStopped = errors.New("stopped")

// ErrSuperseded is what saving a run returns when another worker has taken it over, and what a Processor then returns.
var ErrSuperseded = jobs.ErrSuperseded

// Permanent makes an error of a Processor one after which there is no use in another attempt.
func Permanent(err error) error { return permanentError{err} }

// permanentError is a failure that must not be tried again.
type permanentError struct{ error }

// Is makes asynq archive the task.
func (permanentError) Is(target error) bool { return target == asynq.SkipRetry }

// Unwrap returns the reason.
func (e permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool { return errors.Is(err, asynq.SkipRetry) }

// Processor does the work of one attempt at a run, or at one range of a run that it has cut. The result, if there is no error, must encode to JSON. Any error
// but ErrStopped and ErrSuperseded is a failed attempt, and so is a panic in the processor's own goroutine. When ctx
// ends it must return soon; when run.Stop is closed it should save and return ErrStopped within a few seconds,
// otherwise ctx ends.
type Processor func(ctx context.Context, run *Run) (result any, err error)

// Run is one attempt at a run, as its Processor sees it.
type Run struct {
	// ID names the run, and is the same in all its attempts.
	ID tasks.RunID
	// Definition is that of its job type.
	Definition tasks.Definition
	// Payload is valid, and of the type that the Definition makes.
	Payload tasks.Payload
	// Attempt counts from 1. Attempts that a shutdown or a crash cut short do not count.
	Attempt int
	// Checkpoint is what was saved last in this attempt or an earlier one; nil at the beginning.
	Checkpoint []byte
	// Stop is closed when the worker shuts down.
	Stop <-chan struct{}
	// Log carries the run's ID.
	Log *slog.Logger

	// Range is what this attempt is about when it is not the run as a whole but one of its ranges, as it was given when
	// the run was cut; nil for the run. A range's result is for the run to add up.
	Range []byte

	save    func(ctx context.Context, checkpoint []byte, progress int) error
	observe syncrun.Observe
	ranges  *runRanges // of the run as a whole
}

// Save keeps a checkpoint for the run's next attempt, and shows the progress in percent. It returns ErrSuperseded when
// the run is another worker's by now; other errors are those of a Redis that did not answer.
func (r *Run) Save(ctx context.Context, checkpoint []byte, progress int) error {
	return r.save(ctx, checkpoint, progress)
}
