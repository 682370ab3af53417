package worker

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// What a handler gets and returns. Everything that it gets is plain data and functions, so that a test can make it.

// Handler does the work of one attempt at a run, or at one range of a run that it has split. The result, if there is no error,
// must encode to JSON. An error is a failed attempt, and so is a panic in the handler's own goroutine; an error that it returns
// after Stop was closed, or after ctx ended, costs no attempt. When ctx ends it must return soon.
type Handler func(ctx context.Context, a *Attempt) (result any, err error)

// Attempt is one attempt at a run, as its Handler sees it.
type Attempt struct {
	// ID names the run, and is the same in all its attempts.
	ID tasks.RunID
	// Definition is that of its job type.
	Definition tasks.Definition
	// Payload is valid, and of the type that the Definition makes.
	Payload tasks.Payload
	// Number counts from 1. Attempts that a shutdown or a crash cut short do not count.
	Number int
	// Checkpoint is what was saved last in this attempt or an earlier one; nil at the beginning.
	Checkpoint []byte
	// Range is what this attempt is at when it is not the run as a whole but one of its ranges, as it was given to Ranges.Add;
	// nil for the run. A range's result is for the run to add up.
	Range []byte
	// Stop is closed when the worker shuts down: the handler should save, and return an error, within a few seconds. Otherwise
	// ctx ends.
	Stop <-chan struct{}
	// Save keeps a checkpoint for the next attempt, and shows the progress in percent. Its errors are those of a Redis that did
	// not answer, unless ctx has ended, too: then the attempt may not save any more.
	Save func(ctx context.Context, checkpoint []byte, progress int) error
	// Ranges splits the run; nil in an attempt at a range.
	Ranges Ranges
	// Observe is called when the work on a batch of so many records begins. The work is done with the context that it returns,
	// and when it is over end is called with the numbers of records, or with the reason for which those are not known.
	Observe func(ctx context.Context, records int) (working context.Context, end func(updated, failed int64, err error))
	// Log carries the run's ID.
	Log *slog.Logger
}

// Ranges is where the ranges of one run are kept, and the queue from which workers take them. It waits for a Redis that is
// away: its errors end the attempt.
type Ranges interface {
	// Split returns how far the run is split, and how far its ranges are.
	Split(ctx context.Context) (jobs.Split, error)
	// Add records the range with the given index, which follows the last one, and enqueues it. Nothing follows the last.
	Add(ctx context.Context, index int, spec []byte, last bool) error
	// Requeue enqueues every range that has not ended, unless it is enqueued or being worked on.
	Requeue(ctx context.Context) error
	// Each calls f with what has become of each range, in their order, until it returns an error.
	Each(ctx context.Context, f func(index int, known jobs.RangeInfo) error) error
	// Discard forgets all ranges.
	Discard(ctx context.Context) error
}

// Permanent makes an error of a Handler one after which there is no use in another attempt.
func Permanent(err error) error { return permanentError{err} }

// permanentError is a failure that must not be tried again.
type permanentError struct{ error }

// Is makes asynq archive the task.
func (permanentError) Is(target error) bool { return target == asynq.SkipRetry }

// Unwrap returns the reason.
func (e permanentError) Unwrap() error { return e.error }

func isPermanent(err error) bool { return errors.Is(err, asynq.SkipRetry) }
