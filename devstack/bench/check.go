// The short form for make check. It finds a sync that has become much slower. For small differences there is the whole bench.

package main

import (
	"context"
	"fmt"
	"slices"
)

const (
	// writtenRatio is how fast a full sync is, compared with the driver alone: docs/performance.md has it.
	writtenRatio = 0.95
	// tolerance is how far below that each of checkRounds rounds must be for an error. Machines are noisy.
	tolerance   = 0.15
	checkRounds = 5
	checkUsers  = 40_000
)

// check measures full syncs and the driver alone in turns, and returns an error if the sync was too slow in each round.
func (b *bench) check(ctx context.Context) error {
	if err := b.users.ensure(ctx, checkUsers); err != nil {
		return err
	}
	f := figure{Section: "check", What: "full sync, " + count(checkUsers) + " users", Unit: usersPerSecond, Against: "the driver alone"}
	var ratios []float64
	for range checkRounds {
		alone, err := b.driverAlone(ctx, checkUsers, leastFields)
		if err != nil {
			return err
		}
		synced, err := b.syncOn(ctx, []spec{newWorker(nil)}, checkUsers, full)
		if err != nil {
			return err
		}
		f.Samples = append(f.Samples, perSecond(checkUsers, synced.took))
		f.AgainstSamples = append(f.AgainstSamples, perSecond(checkUsers, alone.took))
		ratios = append(ratios, alone.took.Seconds()/synced.took.Seconds())
	}
	b.report.addMedians(f)
	least := writtenRatio * (1 - tolerance)
	if best := slices.Max(ratios); best < least {
		return fmt.Errorf("a full sync was at %s of the driver alone in the best of %d rounds, and must be at %s in at least one", number(best), checkRounds, number(least))
	}
	return nil
}
