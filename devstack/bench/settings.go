// The default settings should be good ones. This section compares the settings in use with others.

package main

import (
	"context"
	"fmt"
	"strconv"
)

// The values to compare the settings in use with.
var (
	otherWriters    = []int{2, 4, 8}
	otherBatchSizes = []int{100, 500, 1000}
)

// tuning is a choice of the settings that a sync's speed depends on.
type tuning struct{ writers, batchSize int }

func (t tuning) String() string {
	return fmt.Sprintf("writers: %d, batches: %s", t.writers, count(t.batchSize))
}

func (t tuning) settings() settings {
	return settings{writersSetting: strconv.Itoa(t.writers), batchSizeSetting: strconv.Itoa(t.batchSize)}
}

// others returns the tunings to compare with t.
func (t tuning) others() []tuning {
	var list []tuning
	for _, writers := range otherWriters {
		for _, batchSize := range otherBatchSizes {
			if other := (tuning{writers, batchSize}); other != t {
				list = append(list, other)
			}
		}
	}
	return list
}

// measureSettings measures a full sync with the settings in use, and with each of some others.
func (b *bench) measureSettings(ctx context.Context) error {
	n := b.plan.comparisons
	if err := b.users.ensure(ctx, n); err != nil {
		return err
	}
	used := tuning{b.cfg.Sync.Writers, b.cfg.Sync.BatchSize}
	tunings := append([]tuning{used}, used.others()...)
	speeds := make([][]float64, len(tunings))
	err := rounds(func(number int) error {
		for i, t := range tunings {
			c, err := b.syncOn(ctx, []spec{newWorker(t.settings())}, n, full)
			if err != nil {
				return err
			}
			b.progress.say("full sync, %s users, %s, round %d: %s", count(n), t, number, rounded(c.took))
			speeds[i] = append(speeds[i], perSecond(n, c.took))
		}
		return nil
	})
	if err != nil {
		return err
	}
	best := 1
	for i := range speeds[1:] {
		if median(speeds[i+1]) > median(speeds[best]) {
			best = i + 1
		}
	}
	b.report.addMedians(figure{
		Section: "settings", Unit: usersPerSecond,
		What:    fmt.Sprintf("full sync, %s users, %s", count(n), used),
		Against: "best other, " + tunings[best].String(), Samples: speeds[0], AgainstSamples: speeds[best],
	})
	return nil
}
