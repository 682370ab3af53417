package syncrun

import "context"

// Work is what a run does with a batch of records before it writes them: the place for whatever a synchronisation asks
// somebody else about its records. It is used by several goroutines at the same time.
type Work interface {
	// Do returns one Outcome for each record of the batch, in their order. An error is that of the whole attempt; one
	// that wraps ErrUnavailable is waited for, and then Do is called with the same batch again. Do returns soon when ctx
	// ends. As a batch may be worked on again after a crash, doing it twice must be as good as doing it once.
	Do(ctx context.Context, batch []Record) ([]Outcome, error)
}

// Outcome is what Work answers for one record.
type Outcome struct {
	// Set is fields to set in the record together with its stamp, by name; nil for none.
	Set map[string]any
	// Err is why the record cannot be updated now: it is counted as an error, keeps its stamp and so stays due.
	Err error
}

// Stamping is the Work that leaves every record as it is but for its stamp.
type Stamping struct{}

// Do implements Work.
func (Stamping) Do(_ context.Context, batch []Record) ([]Outcome, error) {
	return make([]Outcome, len(batch)), nil
}
