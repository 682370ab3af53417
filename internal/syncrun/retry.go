// Waiting for a store that is unavailable, or does not answer.

package syncrun

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The wait before the next try doubles from firstWait up to lastWait.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

const (
	// notableWait is how long one operation takes before the run says that it waits.
	notableWait = 10 * time.Second
	// waitsInterval is how often a run looks whether it waits.
	waitsInterval = time.Second
)

// Waiting is told, once a second, what a run waits for, and since when, while it waits for a store or a Work that is unavailable or
// does not answer.
type Waiting func(ctx context.Context, what string, since time.Time)

// retry calls f again while f returns ErrUnavailable and the retry budget lasts. The budget begins with the first call, because a
// store that hangs does not answer from then on. The context of each further call ends with it. It returns ErrStopped if Stop is
// closed meanwhile.
func (p *Pass) retry(ctx context.Context, what string, f func(context.Context) error) error {
	begun := time.Now()
	operation := p.waits.begin(what, begun)
	defer p.waits.end(operation)
	err := f(ctx)
	if err == nil {
		return nil
	}
	p.waits.fail(operation)
	bounded, cancel := context.WithDeadline(ctx, begun.Add(p.RetryBudget))
	defer cancel()
	for wait := firstWait; errors.Is(err, ErrUnavailable) && ctx.Err() == nil; wait = min(2*wait, lastWait) {
		if tried := time.Since(begun); tried+wait > p.RetryBudget {
			return fmt.Errorf("%s, tried for %s: %w", what, tried.Round(time.Second), err)
		}
		p.Log.Warn("Database unreachable, trying again", "doing", what, "retryIn", wait.String(), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.Stop:
			timer.Stop()
			return ErrStopped
		case <-ctx.Done():
			timer.Stop()
		}
		if ctx.Err() != nil {
			break
		}
		again := f(bounded)
		switch {
		case again == nil:
			p.Log.Info("Database reachable again", "doing", what, "after", time.Since(begun).Round(time.Millisecond).String())
			return nil
		case bounded.Err() == nil || ctx.Err() != nil:
			err = again
		} // otherwise the budget has ended the call, and the error before says why
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// waits knows which operations of a run are under way. A nil one knows none.
type waits struct {
	mu         sync.Mutex
	operations []operation
}

// operation is a call of retry. The zero value is a free place for one.
type operation struct {
	what   string
	begun  time.Time
	failed bool
}

// begin returns the place of the operation. It reuses places, because a run reads each record with an operation.
func (w *waits) begin(what string, begun time.Time) (place int) {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for place = range w.operations {
		if w.operations[place].what == "" {
			w.operations[place] = operation{what: what, begun: begun}
			return place
		}
	}
	w.operations = append(w.operations, operation{what: what, begun: begun})
	return len(w.operations) - 1
}

func (w *waits) fail(place int) {
	if w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.operations[place].failed = true
	}
}

func (w *waits) end(place int) {
	if w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.operations[place] = operation{}
	}
}

// oldest returns the operation that waits longest; its what is "" if none waits.
func (w *waits) oldest(now time.Time) (oldest operation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.operations {
		if o.what != "" && (o.failed || now.Sub(o.begun) >= notableWait) && (oldest.what == "" || o.begun.Before(oldest.begun)) {
			oldest = o
		}
	}
	return oldest
}

// watchWaits tells Waiting what the run waits for, until end is called.
func (p *Pass) watchWaits(ctx context.Context) (end func()) {
	if p.Waiting == nil || p.waits != nil { // the run watches the operations of its pass, too
		return func() {}
	}
	p.waits = new(waits)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(waitsInterval)
		defer ticker.Stop()
		warned := false
		for {
			select {
			case now := <-ticker.C:
				o := p.waits.oldest(now)
				if o.what != "" {
					p.Waiting(ctx, o.what, o.begun)
				}
				if hangs := o.what != "" && !o.failed; hangs && !warned {
					p.Log.Warn("Database does not answer", "doing", o.what, "for", now.Sub(o.begun).Round(time.Second).String())
				}
				warned = o.what != ""
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}
