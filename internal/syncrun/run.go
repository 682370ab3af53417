// A run: one pass if it is small, ranges that all workers share if it is large.

package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// DefaultRangeSize is how many records a range has. At ten thousand records a second that is two seconds of work. Finding
	// the range and enqueueing it takes ten milliseconds, which does not count against that. And it is small enough for several
	// workers to end at about the same time.
	DefaultRangeSize = 20_000

	// leastFailed is how many records a run must have visited for ErrAllFailed. With fewer it can be the records: an incremental
	// run visits few if nearly all are fresh, and one that is always bad is always among them.
	leastFailed = 20

	// watchInterval is how often a run looks how far its ranges are, and saves their progress.
	watchInterval = 250 * time.Millisecond
	// stallTimeout is how long the ranges make no progress before a run enqueues those again that are in no queue.
	stallTimeout = 30 * time.Second
)

// ErrRangesFailed is the error of a run whose ranges did not all succeed: some have used up their attempts. Another attempt at
// the run would be useless.
var ErrRangesFailed = errors.New("some ranges failed")

// Run is one attempt at a run. It visits all selected records. A small run is one Pass. A large run is split into ranges, which
// all workers share. The run waits for them, and adds up what they have done.
type Run struct {
	// Pass says what the run does. Its Range is not used.
	Pass
	// RangeSize is how many records a range has.
	RangeSize int
	// Ranges stores and enqueues the ranges of this run.
	Ranges Ranges
}

// Ranges stores the ranges of one run, and enqueues them for all workers. When one of its methods returns an error, the attempt
// must end.
type Ranges interface {
	// Split returns how far the run is split, and how far its ranges are.
	Split(ctx context.Context) (Split, error)
	// Add records the next range, and enqueues it. Index counts from 0, and last says that no more ranges follow.
	Add(ctx context.Context, index int, r Range, last bool) error
	// Ended returns a channel that has a value when all ranges have ended. The value can be lost.
	Ended() <-chan struct{}
	// Requeue enqueues each range that has not ended, unless it is in the queue or active.
	Requeue(ctx context.Context) error
	// Waiting returns when the first range goes on if all that have not ended wait for what is away. Otherwise it returns the
	// zero time.
	Waiting(ctx context.Context) (until time.Time, err error)
	// Results calls f with the result of each range, in their order. There can be too many to hold all of them.
	Results(ctx context.Context, f func(index int, result RangeResult)) error
	// Discard removes all ranges.
	Discard(ctx context.Context) error
}

// Split says how far a run is split into ranges, and how far its ranges are.
type Split struct {
	// Ranges is the number of ranges so far.
	Ranges int
	// Last is the last range so far. If Complete is true, no more follow.
	Last     Range
	Complete bool
	// Ended is how many ranges have ended, with or without success.
	Ended int
	// Progress is the progress of all ranges so far together, in percent.
	Progress int
}

// RangeResult says what was done in one range.
type RangeResult struct {
	// Checkpoint counts what was done. In a range that failed, more may have been done.
	Checkpoint Checkpoint
	// Failure is why the range failed. It is "" if it did not.
	Failure string
}

// Result is what a run has done, over all its attempts.
type Result struct {
	Processed, Updated, Errors int64
	// Failed lists the first records that failed. Of a split run it is empty: each of its ranges has a list of its own.
	Failed []FailedRecord
	// Elapsed is the working time.
	Elapsed time.Duration
}

// Do visits the selected records, each once, and returns what the run has done over all its attempts. When Stop is closed, it
// saves a checkpoint and returns ErrStopped: the next attempt goes on from there, and the ranges of a split run go on meanwhile.
// When ctx ends, it returns ctx's cause at once. A *WaitError says that it cannot go on now. After ErrRangesFailed another attempt is useless. Any other error is a failed
// attempt. With ErrRangesFailed and ErrAllFailed the result is what was done, and otherwise it is empty.
func (r Run) Do(ctx context.Context) (Result, error) {
	started := time.Now()
	defer r.watchWaits(ctx)()
	split, err := r.Ranges.Split(ctx)
	if err != nil {
		return Result{}, err
	}
	switch {
	case split.Ranges > 0: // an earlier attempt may have ended between recording a range and enqueueing it
		if err := r.Ranges.Requeue(ctx); err != nil {
			return Result{}, err
		}
	case r.findFew(ctx): // which one pass visits in no time
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
		total, err = r.doRanges(ctx, split, started)
	}
	result := Result{Processed: total.Processed, Updated: total.Updated, Errors: total.Errors, Failed: total.Failed, Elapsed: total.Elapsed}
	if err != nil {
		return result, err
	}
	if total.Processed >= leastFailed && total.Errors == total.Processed {
		// The next attempt begins at the beginning: behind the checkpoint nothing is left to try.
		if err := r.Ranges.Discard(ctx); err != nil {
			return Result{}, err
		}
		_ = r.Save(ctx, Checkpoint{Elapsed: total.Elapsed}, 0) // if it fails, the next attempt only ends sooner
		return result, fmt.Errorf("%w: %d of %d %ss, the first one: %s", ErrAllFailed, total.Errors, total.Processed, r.Noun, total.Failure)
	}
	return result, nil
}

// findFew makes the run visit nothing but the selected records, if the store can find them because they are few. Then nothing must
// walk over all records: no split, no count and no scan. It reports whether it did. An error changes nothing, as the run can do
// without.
func (r *Run) findFew(ctx context.Context) bool {
	finder, ok := r.Store.(Finder)
	if !ok || r.Selection.Full {
		return false
	}
	looking, end := r.untilStopped(ctx)
	defer end()
	few, found, err := finder.Few(looking, r.Selection)
	if err != nil && looking.Err() == nil {
		r.Log.Warn("Could not use the index, reading all "+r.Noun+"s instead", "error", err)
	}
	if err != nil || !found {
		return false
	}
	r.Log.Info("Few " + r.Noun + "s are due, reading them by the index")
	r.Store = few
	return true
}

// doRanges splits the rest of the run into ranges, waits until all have ended, and adds up what they have done.
func (r Run) doRanges(ctx context.Context, split Split, started time.Time) (Checkpoint, error) {
	elapsed := func() time.Duration { return r.Resume.Elapsed + time.Since(started) }
	for !split.Complete {
		next, err := r.next(ctx, split.Last)
		if err == nil {
			split, err = r.add(ctx, split, next)
		}
		if errors.Is(err, ErrStopped) || err == nil && stopped(r.Stop) {
			return Checkpoint{}, r.stop(ctx, elapsed(), split)
		}
		if err != nil {
			return Checkpoint{}, err
		}
	}
	r.Log.Info("Sharing the run with all workers", "ranges", split.Ranges, "cutIn", time.Since(started).Round(time.Millisecond).String())
	counted, stopCounting := r.countAll(ctx)
	defer stopCounting()
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var (
		before  Split
		moved   = time.Now() // when there was progress
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
			until, err := r.Ranges.Waiting(ctx)
			if err != nil {
				return Checkpoint{}, err
			}
			if !until.IsZero() {
				r.saveElapsed(ctx, elapsed(), split)
				return Checkpoint{}, &WaitError{Err: errors.New("all remaining ranges wait for their upstream"), After: time.Until(until)}
			}
			if err := r.Ranges.Requeue(ctx); err != nil {
				return Checkpoint{}, err
			}
			moved = now
		}
		if split.Progress > shownAs {
			shownAs = split.Progress
			_ = r.Save(ctx, Checkpoint{Elapsed: elapsed(), Total: r.Resume.Total}, min(99, split.Progress)) // if it fails, the next one follows soon
		}
		select {
		case <-ticker.C:
		case <-r.Ranges.Ended():
		case r.Resume.Total = <-counted:
			shownAs = -1 // show it
		case <-r.Stop:
			return Checkpoint{}, r.stop(ctx, elapsed(), split)
		case <-ctx.Done():
			return Checkpoint{}, context.Cause(ctx)
		}
	}
	total, err := r.sum(ctx)
	total.Elapsed = elapsed()
	return total, err
}

// countAll counts the records of a full run that is split, while its ranges do the work, unless an earlier attempt has. It is only for
// people who watch, so it is not tried again. The ranges of an incremental run count their own records. The caller must call end.
func (r Run) countAll(ctx context.Context) (counted <-chan int64, end func()) {
	if !r.Selection.Full || r.Resume.Total > 0 {
		return nil, func() {}
	}
	return r.countMeanwhile(ctx, func(ctx context.Context) (int64, error) { return r.Store.Count(ctx, r.Selection, Range{}) })
}

// next returns the range behind the previous one. Its Upto is nil if it is the last.
func (r Run) next(ctx context.Context, previous Range) (Range, error) {
	splitting, end := r.untilStopped(ctx)
	defer end()
	next := Range{After: previous.Upto}
	err := r.retry(splitting, "splitting the "+r.Noun+"s into ranges", func(ctx context.Context) (err error) {
		next.Upto, err = r.Store.EndOfRange(ctx, next.After, r.RangeSize)
		return err
	})
	if err == nil && (next.Upto != nil || next.After != nil) {
		next.Records = int64(r.RangeSize)
	}
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

// stop saves how long the run has taken so far, and returns ErrStopped.
func (r Run) stop(ctx context.Context, elapsed time.Duration, split Split) error {
	r.saveElapsed(ctx, elapsed, split)
	return ErrStopped
}

func (r Run) saveElapsed(ctx context.Context, elapsed time.Duration, split Split) {
	saving, cancel := context.WithTimeout(ctx, finalSaveTimeout)
	defer cancel()
	_ = r.Save(saving, Checkpoint{Elapsed: elapsed, Total: r.Resume.Total}, min(99, split.Progress)) // if it fails, the duration lacks this attempt
}

// sum adds up what the ranges have done. It returns ErrRangesFailed, with the reason of the first failed range, if one failed.
func (r Run) sum(ctx context.Context) (Checkpoint, error) {
	var total Checkpoint
	var ranges, failed, first int
	var reason string
	err := r.Ranges.Results(ctx, func(index int, result RangeResult) {
		ranges++
		c := result.Checkpoint
		total.Processed += c.Processed
		total.Updated += c.Updated
		total.Errors += c.Errors
		if total.Failure == "" {
			total.Failure = c.Failure
		}
		if result.Failure != "" {
			if failed == 0 {
				first, reason = index, result.Failure
			}
			failed++
		}
	})
	if err != nil {
		return Checkpoint{}, err
	}
	if failed > 0 {
		return total, fmt.Errorf("%w: %d of %d; %d %ss were updated; range %d: %s",
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
