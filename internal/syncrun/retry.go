// Waiting for a store that is unavailable.

package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The wait before the next try doubles from firstWait up to lastWait.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// retry calls f again while f returns ErrUnavailable and the retry budget lasts. It returns ErrStopped if Stop is closed
// meanwhile.
func (p *Pass) retry(ctx context.Context, what string, f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	gone := time.Now()
	for wait := firstWait; errors.Is(err, ErrUnavailable) && ctx.Err() == nil; wait = min(2*wait, lastWait) {
		if tried := time.Since(gone); tried+wait > p.RetryBudget {
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
