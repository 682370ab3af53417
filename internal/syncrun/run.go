package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// DefaultRangeSize is how many records a range has: at ten thousand records a second two seconds' work, against
	// which finding the range and handing it over, some ten milliseconds, do not count, and little enough for several
	// workers to end at about the same time.
	DefaultRangeSize = 20_000

	// watchInterval is how often a run looks how far its ranges are: it ends that much after the last of them.
	watchInterval = 25 * time.Millisecond
	// progressInterval is how often it shows that.
	progressInterval = 250 * time.Millisecond
	// stallTimeout is after how long without progress a run makes sure that its ranges are still enqueued.
	stallTimeout = 30 * time.Second
)

// ErrRangesFailed is returned by a run some of whose ranges have used up their attempts. There is no use in another
// attempt at the run.
var ErrRangesFailed = errors.New("some ranges failed")

// Run is one attempt at a run: it visits all selected records. A small run is a single Pass. A large one is split into
// ranges, each of which any worker may take; the run then waits for them and adds up what they have done.
type Run struct {
	// Pass says what the run does; its Range is not used.
	Pass
	// RangeSize is how many records a range has.
	RangeSize int
	// Ranges keeps the ranges of this run.
	Ranges Ranges
}

// Ranges is where the ranges of one run are kept, and the queue from which they are taken. Its errors end the
// attempt.
type Ranges interface {
	// Split returns how far the run is split, and how far its ranges are.
	Split(ctx context.Context) (Split, error)
	// Add records the range with the given index, which follows the last one, and enqueues it. Nothing follows the last.
	Add(ctx context.Context, index int, r Range, last bool) error
	// Requeue enqueues every range that has not ended, unless it is enqueued or being worked on.
	Requeue(ctx context.Context) error
	// Ended calls f with what has become of each range, in their order. There may be too many to hold all of them.
	Ended(ctx context.Context, f func(index int, ended Ended)) error
	// Discard forgets all ranges.
	Discard(ctx context.Context) error
}

// Split says how far a run is split into ranges, and how far these are.
type Split struct {
	// Ranges is how many there are.
	Ranges int
	// Last is the last of them; with Complete nothing follows it.
	Last     Range
	Complete bool
	// Ended is how many have come to their end, with or without success.
	Ended int
	// Progress is in percent of the ranges that there are.
	Progress int
}

// Ended is what has become of one range.
type Ended struct {
	// Checkpoint counts what was done; that of a range that failed may be behind.
	Checkpoint Checkpoint
	// Failure is the reason for which the range failed; "" when it did not.
	Failure string
}

// Result is what a run that reached its end has done, over all its attempts.
type Result struct {
	Processed, Updated, Errors int64
	// Elapsed is the working time.
	Elapsed time.Duration
}

// Do visits the selected records, each once, and returns what the run has done over all its attempts. When Stop
// is closed it releases the run and returns ErrStopped: an attempt that follows goes on where this one got to, and the
// ranges of a run that is split go on meanwhile. When ctx ends it returns at once with ctx's cause. ErrRangesFailed is
// final; any other error is that of a failed attempt.
func (r Run) Do(ctx context.Context) (Result, error) {
	started := time.Now()
	split, err := r.Ranges.Split(ctx)
	if err != nil {
		return Result{}, err
	}
	switch {
	case split.Ranges > 0: // a former attempt may have ended between recording a range and enqueueing it
		if err := r.Ranges.Requeue(ctx); err != nil {
			return Result{}, err
		}
	case r.Resume.After == nil:
		first, err := r.next(ctx, Range{})
		if err != nil {
			return Result{}, err
		}
		if first.Upto != nil {
			if split, err = r.add(ctx, split, first); err != nil {
				return Result{}, err
			}
		}
	}
	var total Checkpoint
	if split.Ranges == 0 {
		r.Range = Range{}
		total, err = r.Pass.Do(ctx)
	} else {
		total, err = r.share(ctx, split, started)
	}
	if err != nil {
		return Result{}, err
	}
	if total.Processed > 0 && total.Errors == total.Processed {
		// The next attempt begins at the beginning: there is nothing left to try.
		if err := r.Ranges.Discard(ctx); err != nil {
			return Result{}, err
		}
		_ = r.Save(ctx, Checkpoint{Elapsed: total.Elapsed}, 0) // then the next attempt's only fault is to end sooner
		return Result{}, fmt.Errorf("%w: %d of %d %ss, the first one: %s", ErrAllFailed, total.Errors, total.Processed, r.Noun, total.Failure)
	}
	return Result{Processed: total.Processed, Updated: total.Updated, Errors: total.Errors, Elapsed: total.Elapsed}, nil
}

// share splits the rest of the run into ranges, waits until all have ended, and returns what they have done together.
func (r Run) share(ctx context.Context, split Split, started time.Time) (Checkpoint, error) {
	elapsed := func() time.Duration { return r.Resume.Elapsed + time.Since(started) }
	for !split.Complete {
		next, err := r.next(ctx, split.Last)
		if err == nil {
			split, err = r.add(ctx, split, next)
		}
		if errors.Is(err, ErrStopped) || err == nil && stopped(r.Stop) {
			return Checkpoint{}, r.release(ctx, elapsed(), split)
		}
		if err != nil {
			return Checkpoint{}, err
		}
	}
	r.Log.Info("Sharing the run with all workers", "ranges", split.Ranges, "cutIn", time.Since(started).Round(time.Millisecond).String())
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var (
		before  Split
		moved   = time.Now() // when there was progress
		shown   time.Time    // when it was shown
		shownAs = -1
	)
	for {
		var err error
		if split, err = r.Ranges.Split(ctx); err != nil {
			return Checkpoint{}, err
		}
		if split.Ranges == 0 {
			return Checkpoint{}, errors.New("the ranges of the run are gone")
		}
		if split.Ended == split.Ranges {
			break
		}
		now := time.Now()
		if split.Ended != before.Ended || split.Progress != before.Progress {
			before = split
			moved = now
		}
		if now.Sub(moved) >= stallTimeout {
			if err := r.Ranges.Requeue(ctx); err != nil {
				return Checkpoint{}, err
			}
			moved = now
		}
		if split.Progress > shownAs && now.Sub(shown) >= progressInterval {
			shown, shownAs = now, split.Progress
			_ = r.Save(ctx, Checkpoint{Elapsed: elapsed()}, min(99, split.Progress)) // shown again soon
		}
		select {
		case <-ticker.C:
		case <-r.Stop:
			return Checkpoint{}, r.release(ctx, elapsed(), split)
		case <-ctx.Done():
			return Checkpoint{}, context.Cause(ctx)
		}
	}
	total, err := r.sum(ctx)
	total.Elapsed = elapsed()
	return total, err
}

// next returns the range behind another one; its Upto is nil when nothing comes behind it.
func (r Run) next(ctx context.Context, previous Range) (Range, error) {
	splitting, end := r.untilStopped(ctx)
	defer end()
	next := Range{After: previous.Upto}
	err := r.retry(splitting, "cutting the "+r.Noun+"s into ranges", func() (err error) {
		next.Upto, err = r.Store.EndOfRange(splitting, next.After, r.RangeSize)
		return err
	})
	return next, err
}

func (r Run) add(ctx context.Context, split Split, next Range) (Split, error) {
	last := next.Upto == nil
	if err := r.Ranges.Add(ctx, split.Ranges, next, last); err != nil {
		return Split{}, err
	}
	split.Ranges++
	split.Last, split.Complete = next, last
	return split, nil
}

// release saves how long the run has taken so far, and returns ErrStopped.
func (r Run) release(ctx context.Context, elapsed time.Duration, split Split) error {
	saving, cancel := context.WithTimeout(ctx, finalSaveTimeout)
	defer cancel()
	_ = r.Save(saving, Checkpoint{Elapsed: elapsed}, min(99, split.Progress)) // otherwise the run's duration lacks this attempt
	return ErrStopped
}

// sum adds up what the ranges have done, or returns ErrRangesFailed with what is known of the first that failed.
func (r Run) sum(ctx context.Context) (Checkpoint, error) {
	var total Checkpoint
	var ranges, failed, first int
	var reason string
	err := r.Ranges.Ended(ctx, func(index int, ended Ended) {
		ranges++
		c := ended.Checkpoint
		total.Processed += c.Processed
		total.Updated += c.Updated
		total.Errors += c.Errors
		if total.Failure == "" {
			total.Failure = c.Failure
		}
		if ended.Failure != "" {
			if failed == 0 {
				first, reason = index, ended.Failure
			}
			failed++
		}
	})
	if err != nil {
		return Checkpoint{}, err
	}
	if failed > 0 {
		return Checkpoint{}, fmt.Errorf("%w: %d of %d; %d %ss were updated; range %d: %s",
			ErrRangesFailed, failed, ranges, total.Updated, r.Noun, first, reason)
	}
	return total, nil
}

// stopped reports whether stop is closed.
func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
