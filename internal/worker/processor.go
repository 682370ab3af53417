package worker

import (
	"context"
	"errors"
	"log/slog"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// ErrStopped is what a Processor returns after its run was asked to stop and has saved where it got to. It costs no
// attempt: the run goes on when a worker takes it again.
var ErrStopped = errors.New("stopped")

// ErrSuperseded is what saving a run returns when another worker has taken it over, and what a Processor then returns.
var ErrSuperseded = jobs.ErrSuperseded

// Processor does the work of one attempt at a run. The result, if there is no error, must encode to JSON. Any error
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

	state *jobs.RunState
}

// Save keeps a checkpoint for the run's next attempt, and shows the progress in percent. It returns ErrSuperseded when
// the run is another worker's by now; other errors are those of a Redis that did not answer.
func (r *Run) Save(ctx context.Context, checkpoint []byte, progress int) error {
	return r.state.Save(ctx, checkpoint, progress)
}
