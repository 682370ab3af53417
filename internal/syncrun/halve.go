// Finding the record because of which the work on a whole batch fails.

package syncrun

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// outcomes does the work on records, which it halves if the Work asks for that. It returns one Outcome for each of them. With an
// error it returns those of the first records, as far as it got: otherwise a Work that must wait in the middle of halving, each time
// anew, would never come to an end.
func (p *Pass) outcomes(ctx context.Context, records []Record) ([]Outcome, error) {
	for tried, wait := 1, firstWait; ; tried, wait = tried+1, min(2*wait, lastWait) {
		outcomes, halve, err := p.call(ctx, records)
		switch {
		case err != nil || halve == nil:
			return outcomes, err
		case tried >= halve.Tries:
			p.Log.Warn("Halving a batch to find what fails in it", "batchSize", len(records), "tries", tried, "error", halve.Err)
			return p.halves(ctx, records, halve)
		}
		p.Log.Warn("The work on a batch failed, trying again", "batchSize", len(records), "tries", tried, "retryIn", wait.String(),
			"error", halve.Err)
		if err := p.pause(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// halves does the work on each half of records that have failed together, as outcomes does. A single one has failed by itself.
func (p *Pass) halves(ctx context.Context, records []Record, halve *HalveError) ([]Outcome, error) {
	if len(records) == 1 {
		return []Outcome{{Err: halve.Err}}, nil
	}
	all := make([]Outcome, 0, len(records))
	for half := range slices.Chunk(records, (len(records)+1)/2) {
		if err := p.interrupted(ctx); err != nil {
			return all, err
		}
		outcomes, halve, err := p.call(ctx, half)
		if err == nil && halve != nil {
			outcomes, err = p.halves(ctx, half, halve)
		}
		all = append(all, outcomes...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// call does the work on records once, apart from the times when it must wait. If the Work asks for halves, it returns why.
func (p *Pass) call(ctx context.Context, records []Record) (outcomes []Outcome, halve *HalveError, err error) {
	err = p.retryWork(ctx, func() (err error) {
		outcomes, err = p.Work.Do(ctx, records)
		if asked := new(HalveError); errors.As(err, &asked) && !errors.As(err, new(*WaitError)) {
			halve = &HalveError{Err: err, Tries: asked.Tries} // with all that the error says
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return nil, nil, err
	case halve == nil && len(outcomes) != len(records):
		return nil, nil, fmt.Errorf("working on %ss: %d outcomes for a batch of %d", p.Noun, len(outcomes), len(records))
	}
	return outcomes, halve, nil
}

// interrupted returns ctx's cause if ctx has ended, and ErrStopped if Stop is closed.
func (p *Pass) interrupted(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case stopped(p.Stop):
		return ErrStopped
	}
	return nil
}

// pause waits. It returns ctx's cause if ctx ends meanwhile, and ErrStopped if Stop is closed.
func (p *Pass) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.Stop:
	case <-ctx.Done():
	}
	return p.interrupted(ctx)
}
