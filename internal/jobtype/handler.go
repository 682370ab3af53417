// What a handler gets and returns.

package jobtype

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Handler does the work of one attempt at a run, or at one range of a split run. Its result must encode to JSON. An error, or a
// panic in its own goroutine, is a failed attempt. An error after Stop was closed costs no attempt. When ctx ends, the
// handler must return soon: the run was cancelled, has exceeded its maximum duration, or goes on elsewhere.
type Handler func(ctx context.Context, a *Attempt) (result any, err error)

// Attempt is one try at a run, or at one of its ranges, as the Handler sees it. It has only data and functions, so that a test
// can make one.
type Attempt struct {
	// ID names the run. It is the same in all attempts.
	ID tasks.RunID
	// Definition describes the job type.
	Definition tasks.Definition
	// Payload is valid, and has the type that Definition.NewPayload returns.
	Payload tasks.Payload
	// Number counts the attempts from 1. An attempt that a shutdown or a crash ended does not count.
	Number int
	// Retries counts how many times the run was retried by hand. Each time its Number begins at 1 again.
	Retries int
	// Checkpoint is what an earlier attempt saved last. It is nil at the beginning.
	Checkpoint []byte
	// Range is the spec of the range, as given to Ranges.Add. It is nil in an attempt at the run. The run adds up the results of
	// its ranges.
	Range []byte
	// Stop is closed when the worker shuts down, or has lost the lease of the job type. The handler should then save a checkpoint
	// and return an error within 7 s. If it does not, ctx ends.
	Stop <-chan struct{}
	// Save stores a checkpoint for the next attempt, and shows the progress in percent. An error means that Redis did not
	// answer, or, if ctx has ended too, that the attempt can save nothing any more.
	Save func(ctx context.Context, checkpoint []byte, progress int) error
	// Ranges splits the run. It is nil in an attempt at a range.
	Ranges Ranges
	// Exhausted says that the attempt has read the last record, and only finishes what it has begun. The worker can begin the next range
	// meanwhile, so what both do must share its bounds. It can be nil.
	Exhausted func()
	// Observe measures and traces the work on a batch of records. Call it before the work, and do the work with the context that
	// it returns. Then call end with the numbers of records, or with the error that makes them unknown.
	Observe func(ctx context.Context, records int) (working context.Context, end func(updated, failed int64, err error))
	// Permit waits until one more call is within the job type's rate limit. Call end when the call has ended. It returns an error
	// when ctx ends, or when Stop is closed, before. It can be nil: then there is no limit.
	Permit func(ctx context.Context) (end func(), err error)
	// Count says what the run has done to its records by now, over all attempts, for the record of the run. The next Save shows it. It
	// can be nil.
	Count func(processed, updated, failed int64)
	// Total says how many records the run, or the range, is to visit. 0 means that this is not known. The next Save shows it. It can be
	// nil.
	Total func(records int64)
	// Failed says which records have failed by now, over all attempts: the first ones, at most jobs.MaxFailedRecords. The attempt
	// must not change the list afterwards. It can be nil.
	Failed func(records []jobs.FailedRecord)
	// Waiting tells people what the attempt waits for, such as a server that does not answer. Call it once a second, as long as
	// the attempt waits. It can be nil.
	Waiting func(ctx context.Context, wait jobs.Wait)
	// Log adds the run's ID to each line.
	Log *slog.Logger
}

// Ranges splits one run into ranges, and enqueues these for all workers. Its methods wait for a Redis that does not answer. When
// one returns an error, the attempt must end.
type Ranges interface {
	// Split returns how far the run is split, and how far its ranges are.
	Split(ctx context.Context) (jobs.Split, error)
	// Add records the next range, and enqueues it. Index counts from 0, and last says that no more ranges follow.
	Add(ctx context.Context, index int, spec []byte, last bool) error
	// Ended returns a channel that has a value when all ranges have ended. While Redis is away, the value can be lost.
	Ended() <-chan struct{}
	// Requeue enqueues each range that has not ended, unless it is in the queue or active.
	Requeue(ctx context.Context) error
	// Each calls f for each range, in their order, until f returns an error. It returns that error.
	Each(ctx context.Context, f func(index int, info jobs.RangeInfo) error) error
	// Discard removes all ranges.
	Discard(ctx context.Context) error
}

// WaitError is the error of a Handler that cannot go on now, because something that it needs is away. The attempt costs nothing,
// and the next one follows later. A run that waits for 24 h without any progress fails.
type WaitError struct {
	// Err says what is away.
	Err error
	// After is how long to wait. It is between a second and 24 h; 0 is a minute.
	After time.Duration
}

func (e *WaitError) Error() string { return e.Err.Error() }

// Unwrap returns what is away.
func (e *WaitError) Unwrap() error { return e.Err }

// Permanent wraps an error of a Handler after which another attempt would be useless: the run fails at once.
func Permanent(err error) error { return permanentError{err} }

type permanentError struct{ error }

// Is makes asynq archive the task.
func (permanentError) Is(target error) bool { return target == asynq.SkipRetry }

// Unwrap returns the wrapped error.
func (e permanentError) Unwrap() error { return e.error }

// IsPermanent reports whether another attempt would be useless after the error.
func IsPermanent(err error) bool { return errors.Is(err, asynq.SkipRetry) }
