package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The waits between two tries at a store that is unavailable double from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
)

// retry calls f until it returns something else than ErrUnavailable, for as long as the pass's retry budget lasts. It gives up
// with ErrStopped when it is asked to stop in between.
func (p *Pass) retry(ctx context.Context, what string, f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	gone := time.Now()
	for pause := firstPause; errors.Is(err, ErrUnavailable) && ctx.Err() == nil; pause = min(2*pause, lastPause) {
		if waited := time.Since(gone); waited+pause > p.RetryBudget {
			return fmt.Errorf("%s, tried for %s: %w", what, waited.Round(time.Second), err)
		}
		p.Log.Warn("Database unreachable, trying again", "doing", what, "retryIn", pause.String(), "error", err)
		timer := time.NewTimer(pause)
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
		if err = f(); err == nil {
			p.Log.Info("Database reachable again", "doing", what, "after", time.Since(gone).Round(time.Millisecond).String())
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", what, err)
}
