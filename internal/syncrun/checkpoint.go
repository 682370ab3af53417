package syncrun

import (
	"context"
	"time"
)

// Checkpoint is how far a range has got: everything up to and including After is done and counted, nothing behind it is.
// The zero value is the beginning. It is JSON between attempts.
type Checkpoint struct {
	// After is the key of the last record that is done; nil at the beginning.
	After []byte `json:"after,omitempty"`
	// Total is the number of records that were selected when the work on the range began.
	Total int64 `json:"total"`
	// Processed, Updated and Errors count the records up to After.
	Processed int64 `json:"processed"`
	Updated   int64 `json:"updated"`
	Errors    int64 `json:"errors"`
	// Failure is the reason of the first record that failed.
	Failure string `json:"failure,omitempty"`
	// Elapsed is the working time so far, in nanoseconds.
	Elapsed time.Duration `json:"elapsed"`
}

// Progress is the share of the records that is done, in percent: 0 to 99, as 100 is kept for the end.
func (c Checkpoint) Progress() int {
	if c.Total <= 0 {
		return 0
	}
	return int(min(99, c.Processed*100/c.Total))
}

// Save keeps a checkpoint for the next attempt and shows the progress in percent. Its errors are logged, and it is called
// again; until it succeeds no more batches are begun than may be in flight. Where the attempt may not go on, as another one has
// taken its place, ctx ends as well.
type Save func(ctx context.Context, checkpoint Checkpoint, progress int) error
