// What a team's own code does with each batch.

package syncrun

import (
	"context"
	"time"
)

// Work is what a run does with a batch of records before it writes them, such as asking another system about them. Several
// goroutines use it at the same time.
type Work interface {
	// Do returns one Outcome for each record of the batch, in their order. An error fails the attempt. After a *WaitError, Do is
	// called again with the same batch, until the retry budget is used up. Then the attempt returns that error. Do must return
	// soon when ctx ends. A batch that was done and not yet written is done again after a crash, so doing it twice must be as
	// good as doing it once.
	Do(ctx context.Context, batch []Record) ([]Outcome, error)
}

// Outcome is the result of Work for one record.
type Outcome struct {
	// Set is the fields to set together with the stamp, by name. It can be nil.
	Set map[string]any
	// Unset is the fields to remove together with the stamp, by name. It can be nil.
	Unset []string
	// Err is why the record cannot be updated now. The record counts as an error, keeps its stamp, and so stays due.
	Err error
}

// WaitError is the error of a Work that cannot be done now, because something that it needs is away, or asks for less.
type WaitError struct {
	// Err says what is away.
	Err error
	// After is how long to wait. 0 leaves it to the run.
	After time.Duration
}

func (e *WaitError) Error() string { return e.Err.Error() }

// Unwrap returns what is away.
func (e *WaitError) Unwrap() error { return e.Err }

// HalveError is the error of a Work that one of the records may cause, or their number. The Work gets the same records Tries times in
// all. Then it gets them in halves, each half once, and so on. A record that fails alone has the error as its Outcome's: it is an
// error of records then, never of the attempt.
type HalveError struct {
	// Err says what has failed.
	Err error
	// Tries is how often the Work gets the same records before they are halved. Less than 1 is 1.
	Tries int
}

func (e *HalveError) Error() string { return e.Err.Error() }

// Unwrap returns what has failed.
func (e *HalveError) Unwrap() error { return e.Err }

// Stamping is the Work that does nothing: records only get their stamp.
type Stamping struct{}

// Do implements Work.
func (Stamping) Do(_ context.Context, batch []Record) ([]Outcome, error) {
	return make([]Outcome, len(batch)), nil
}
