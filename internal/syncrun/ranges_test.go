package syncrun_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// ranges is a syncrun.Ranges in memory, with the queue of the tasks.
type ranges struct {
	// before is called at the start of each operation, which returns its error. It can be nil.
	before func(operation string) error
	// lossy makes Add lose the task.
	lossy bool

	mu       sync.Mutex
	list     []*rangeTask
	complete bool
	queue    []int // indexes, in the order in which they were enqueued
	requeued int
	ended    chan struct{}
}

type rangeTask struct {
	syncrun.Range
	queued     bool // or taken
	owner      *int // of the attempt that works on it
	checkpoint syncrun.Checkpoint
	progress   int
	ended      bool
	failure    string
}

func (r *ranges) begin(operation string) error {
	if r.before != nil {
		return r.before(operation)
	}
	return nil
}

func (r *ranges) Split(context.Context) (syncrun.Split, error) {
	if err := r.begin("split"); err != nil {
		return syncrun.Split{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := syncrun.Split{Ranges: len(r.list), Complete: r.complete}
	for _, p := range r.list {
		c.Last = p.Range
		c.Progress += p.progress
		if p.ended {
			c.Ended++
		}
	}
	c.Progress /= max(1, len(r.list))
	return c, nil
}

func (r *ranges) Add(_ context.Context, index int, next syncrun.Range, last bool) error {
	if err := r.begin("add"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if index != len(r.list) {
		return errors.New("not the next range")
	}
	r.list = append(r.list, &rangeTask{Range: next})
	r.complete = last
	if !r.lossy {
		r.enqueue(index)
	}
	if r.before != nil {
		return r.before("added")
	}
	return nil
}

func (r *ranges) enqueue(index int) {
	if p := r.list[index]; !p.queued && !p.ended {
		p.queued = true
		r.queue = append(r.queue, index)
	}
}

func (r *ranges) Ended() <-chan struct{} { return r.ended }

// end ends a range.
func (r *ranges) end(p *rangeTask) {
	p.progress, p.ended = 100, true
	if r.complete && !slices.ContainsFunc(r.list, func(p *rangeTask) bool { return !p.ended }) {
		select {
		case r.ended <- struct{}{}:
		default:
		}
	}
}

func (r *ranges) Requeue(context.Context) error {
	if err := r.begin("requeue"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requeued++
	for i := range r.list {
		r.enqueue(i)
	}
	return nil
}

func (r *ranges) Waiting(context.Context) (time.Time, error) { return time.Time{}, nil }

func (r *ranges) Results(_ context.Context, f func(int, syncrun.RangeResult)) error {
	if err := r.begin("results"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range r.list {
		f(i, syncrun.RangeResult{Checkpoint: p.checkpoint, Failure: p.failure})
	}
	return nil
}

func (r *ranges) Discard(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list, r.queue, r.complete = nil, nil, false
	return nil
}

// take dequeues a range. It returns false if there is none.
func (r *ranges) take(owner *int) (*rangeTask, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, false
	}
	p := r.list[r.queue[0]]
	r.queue = r.queue[1:]
	p.owner = owner
	return p, true
}

// put releases a range.
func (r *ranges) put(p *rangeTask) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.queued = false
	if i := slices.Index(r.list, p); i >= 0 {
		r.enqueue(i)
	}
}

// errFenced is the error of a save after another attempt has become the owner.
var errFenced = errors.New("fenced")

// fencing returns a Save that ends the attempt if it is fenced, as syncrun.Save demands.
func fencing(end context.CancelCauseFunc, save syncrun.Save) syncrun.Save {
	return func(ctx context.Context, c syncrun.Checkpoint, progress int) error {
		err := save(ctx, c, progress)
		if errors.Is(err, errFenced) {
			end(err)
		}
		return err
	}
}

// owned calls f if the owner still owns the range.
func (r *ranges) owned(p *rangeTask, owner *int, f func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.owner != owner || p.ended {
		return errFenced
	}
	f()
	return nil
}

// work makes one attempt at a range, as a worker does that has taken it.
func (r *ranges) work(ctx context.Context, pass syncrun.Pass, p *rangeTask, owner *int, stop <-chan struct{}) error {
	r.mu.Lock()
	pass.Range, pass.Resume, pass.Stop = p.Range, p.checkpoint, stop
	r.mu.Unlock()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	pass.Save = fencing(end, func(ctx context.Context, c syncrun.Checkpoint, progress int) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return r.owned(p, owner, func() { p.checkpoint, p.progress = c, progress })
	})
	done, err := pass.Do(ctx)
	if err != nil {
		return err
	}
	return r.owned(p, owner, func() {
		p.checkpoint = done
		r.end(p)
	})
}

// fail ends a range as failed.
func (r *ranges) fail(p *rangeTask, reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.failure = reason.Error()
	r.end(p)
}
