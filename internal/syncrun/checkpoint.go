// How far an attempt is, and how it tells its caller.

package syncrun

import (
	"context"
	"time"
)

// Checkpoint says how far a run or a range is: everything up to and including After is done and counted, nothing behind it is.
// The zero value is the beginning. Between two attempts it is JSON.
type Checkpoint struct {
	// After is the key of the last record that is done. It is nil at the beginning.
	After []byte `json:"after,omitempty"`
	// Total is how many records the run or range selected when it began.
	Total int64 `json:"total"`
	// Processed, Updated and Errors count the records up to After.
	Processed int64 `json:"processed"`
	Updated   int64 `json:"updated"`
	Errors    int64 `json:"errors"`
	// Failure says why the first record failed that did.
	Failure string `json:"failure,omitempty"`
	// Failed lists the first records that failed, as Pass.KeepFailed says.
	Failed []FailedRecord `json:"failed,omitempty"`
	// Elapsed is the working time of all attempts so far, in nanoseconds.
	Elapsed time.Duration `json:"elapsed"`
}

// Progress returns how much is done, in percent. It is at most 99: only the end is 100.
func (c Checkpoint) Progress() int {
	if c.Total <= 0 {
		return 0
	}
	return int(min(99, c.Processed*100/c.Total))
}

// Save stores a checkpoint for the next attempt, and shows the progress in percent. If it fails, the pass logs the error and
// tries again. Meanwhile it begins only as many batches as can be in flight. If the attempt is fenced, ctx ends with the error
// that Save returns.
type Save func(ctx context.Context, checkpoint Checkpoint, progress int) error
