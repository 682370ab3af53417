// Waiting for a store, or for what the work needs, that is away or does not answer.

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

// Waiting is told, once a second, what a run waits for, while it waits for a store or a Work that is unavailable or does not answer.
type Waiting func(ctx context.Context, wait Wait)

// Wait is what a run waits for.
type Wait struct {
	// For says what is to be done, such as "updating users".
	For string
	// Since is when that began.
	Since time.Time
	// Upstream is true if it is for the Work, not for the store: that must wait, and For has the reason, or it takes long.
	Upstream bool
	// Slow is true if no try has failed by now. Then it takes long, and nobody knows whether it will end.
	Slow bool
}

// retry calls f, which uses the store, again while f returns ErrUnavailable and the retry budget lasts. It returns ErrStopped if
// Stop is closed meanwhile.
func (p *Pass) retry(ctx context.Context, what string, f func(context.Context) error) error {
	doing := operation{what: what}
	return p.await(ctx, doing, "Database unreachable, trying again", "Database reachable again", f, func(err error) (time.Duration, bool) {
		return 0, errors.Is(err, ErrUnavailable)
	})
}

// retryWork calls f, which does the work, again while f returns a *WaitError and the retry budget lasts. It returns the last
// *WaitError then, or if that asks for a longer wait. It returns ErrStopped if Stop is closed meanwhile.
func (p *Pass) retryWork(ctx context.Context, f func() error) error {
	work := func(context.Context) error { return f() } // how long a batch takes is the work's own affair
	doing := operation{what: "working on " + p.Noun + "s", upstream: true}
	return p.await(ctx, doing, "The work must wait", "The work goes on", work, func(err error) (time.Duration, bool) {
		wait := new(WaitError)
		if !errors.As(err, &wait) {
			return 0, false
		}
		return wait.After, true
	})
}

// await calls f again as long as passes says that f's error can pass, and the retry budget lasts. Passes also returns how long to
// wait, 0 for longer and longer. The budget begins with the first call, because a store that hangs does not answer from then on.
// The context of each further call ends with it.
func (p *Pass) await(
	ctx context.Context, o operation, gone, back string, f func(context.Context) error, passes func(error) (time.Duration, bool),
) error {
	doing, begun := o.what, time.Now()
	o.begun = begun
	place := p.waits.begin(o)
	defer p.waits.end(place)
	err := f(ctx)
	if err == nil {
		return nil
	}
	p.waits.fail(place, err)
	bounded, cancel := context.WithDeadline(ctx, begun.Add(p.RetryBudget))
	defer cancel()
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		next, again := passes(err)
		if !again {
			break
		}
		if next == 0 {
			next = wait
		}
		if tried := time.Since(begun); next > p.RetryBudget-tried { // not the sum, as next may be the longest time that there is
			return fmt.Errorf("%s, tried for %s: %w", doing, tried.Round(time.Second), err)
		}
		p.Log.Warn(gone, "doing", doing, "retryIn", next.String(), "error", err)
		if err := p.pause(ctx, next); err != nil {
			return err
		}
		failed := f(bounded)
		switch {
		case failed == nil:
			p.Log.Info(back, "doing", doing, "after", time.Since(begun).Round(time.Millisecond).String())
			return nil
		case bounded.Err() == nil || ctx.Err() != nil:
			err = failed
			p.waits.fail(place, err)
		} // otherwise the budget has ended the call, and the error before says why
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// waits knows which operations of a run are under way. A nil one knows none.
type waits struct {
	mu         sync.Mutex
	operations []operation
}

// operation is a call of retry. The zero value is a free place for one.
type operation struct {
	what     string
	begun    time.Time
	upstream bool // it is the Work
	failed   bool
	reason   string // why the Work waits
}

// begin returns the place of the operation. It reuses places, because a run reads each record with an operation.
func (w *waits) begin(o operation) (place int) {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for place = range w.operations {
		if w.operations[place].what == "" {
			w.operations[place] = o
			return place
		}
	}
	w.operations = append(w.operations, o)
	return len(w.operations) - 1
}

func (w *waits) fail(place int, err error) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &w.operations[place]
	o.failed = true
	if wait := new(WaitError); errors.As(err, &wait) {
		o.reason = wait.Err.Error()
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
					wait := Wait{For: o.what, Since: o.begun, Upstream: o.upstream, Slow: !o.failed}
					if o.reason != "" {
						wait.For += ": " + o.reason
					}
					p.Waiting(ctx, wait)
				}
				if hangs := o.what != "" && !o.failed && !o.upstream; hangs && !warned {
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
