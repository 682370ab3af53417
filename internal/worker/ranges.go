// How an attempt at a run splits it.

package worker

import (
	"context"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// runRanges implements Ranges for an attempt at a run. With the first range it enqueues, it frees the attempt's place among the
// worker's handlers: from then on the attempt only waits.
type runRanges struct {
	attempt *attempt
	state   *jobs.RunState
	ended   chan struct{} // has a value when all ranges have ended
}

// Ended implements Ranges.
func (r *runRanges) Ended() <-chan struct{} { return r.ended }

var _ jobtype.Ranges = (*runRanges)(nil)

// Split implements Ranges.
func (r *runRanges) Split(ctx context.Context) (split jobs.Split, err error) {
	err = r.attempt.retry(ctx, func(ctx context.Context) (err error) {
		split, err = r.state.Split(ctx)
		return err
	})
	return split, err
}

// Add implements Ranges.
func (r *runRanges) Add(ctx context.Context, index int, spec []byte, last bool) error {
	err := r.attempt.retry(ctx, func(ctx context.Context) error { return r.state.AddRange(ctx, index, spec, last) })
	if err != nil {
		return err
	}
	return r.enqueue(ctx, index)
}

func (r *runRanges) enqueue(ctx context.Context, index int) error {
	r.attempt.place()
	return r.attempt.retry(ctx, func(ctx context.Context) error {
		id := tasks.RangeID{Run: r.attempt.id, Index: index}
		return r.attempt.c.w.jobs.EnqueueRange(ctx, r.attempt.c.def, id, r.attempt.task.Payload())
	})
}

// Each implements Ranges.
func (r *runRanges) Each(ctx context.Context, f func(index int, info jobs.RangeInfo) error) error {
	for from := 0; ; {
		var page []jobs.RangeInfo
		err := r.attempt.retry(ctx, func(ctx context.Context) (err error) {
			page, err = r.state.Ranges(ctx, from)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for i, info := range page {
			if err := f(from+i, info); err != nil {
				return err
			}
		}
		from += len(page)
	}
}

// Requeue implements Ranges.
func (r *runRanges) Requeue(ctx context.Context) error {
	return r.Each(ctx, func(index int, info jobs.RangeInfo) error {
		if info.Ended {
			return nil
		}
		return r.enqueue(ctx, index)
	})
}

// Discard implements Ranges.
func (r *runRanges) Discard(ctx context.Context) error {
	return r.attempt.retry(ctx, r.state.DiscardRanges)
}
