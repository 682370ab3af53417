// How fast a sync is, and whether users or memory cost more as their number grows.

package main

import (
	"context"
	"slices"
	"time"
)

const (
	// usersPerSecond is the unit of the figures about syncs.
	usersPerSecond = "users/s"
	// mostRedis is how many µs of its processor time Redis should need at most for a user.
	mostRedis = 0.5
)

// measureSync measures full syncs of growing numbers of users: against the driver alone, what a user costs, and what the programs
// use.
func (b *bench) measureSync(ctx context.Context) error {
	type size struct {
		n      int
		cost   float64 // µs for each user
		memory float64 // MiB
	}
	var measured []size
	for _, n := range b.plan.sizes {
		if err := b.users.ensure(ctx, n); err != nil {
			return err
		}
		c, err := b.compared(ctx, n)
		if err != nil {
			return err
		}
		measured = append(measured, size{n, 1e6 / median(c.product.speeds), slices.Max(c.product.memory)})
	}
	least := measured[0]
	against := count(least.n) + " users"
	for _, m := range measured {
		b.report.add(figure{
			Section: "sync", What: "cost of one user, " + count(m.n) + " users", Value: m.cost, Unit: "µs",
			Against: against, AgainstValue: least.cost,
		})
	}
	if !known {
		b.note("what the programs use of the processor and of memory, which is known on Linux only")
		return nil
	}
	for _, m := range measured {
		b.report.add(figure{
			Section: "sync", What: "peak memory of a worker, " + count(m.n) + " users", Value: m.memory, Unit: "MiB",
			Against: against, AgainstValue: least.memory,
		})
	}
	return nil
}

// samples are what was measured of one way to update all users, by round.
type samples struct {
	speeds                 []float64 // users/s
	process, redis, memory []float64 // µs for each user, the same, and MiB
}

func (s *samples) add(n int, c cost) {
	s.speeds = append(s.speeds, perSecond(n, c.took))
	s.process = append(s.process, perUser(n, c.process))
	s.redis = append(s.redis, perUser(n, c.redis))
	s.memory = append(s.memory, c.memory)
}

// perUser returns how many µs of a time are for each user.
func perUser(n int, d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// comparison is full syncs and the driver alone, in turns.
type comparison struct {
	alone, reading, product, other samples
}

// compared measures full syncs of n users, and the driver alone, and reports all but what depends on other numbers.
func (b *bench) compared(ctx context.Context, n int) (*comparison, error) {
	c := new(comparison)
	users := count(n) + " users"
	err := rounds(func(number int) error {
		for _, way := range []struct {
			name    string
			samples *samples
			measure func() (cost, error)
		}{
			{"the driver alone", &c.alone, func() (cost, error) { return b.driverAlone(ctx, n, leastFields) }},
			{"the driver, reading lastSynced", &c.reading, func() (cost, error) { return b.driverAlone(ctx, n, syncFields) }},
			{"full sync", &c.product, func() (cost, error) { return b.syncOn(ctx, []spec{newWorker(nil)}, n, full) }},
			{"full sync, " + b.compare.name, &c.other, func() (cost, error) { return b.syncOn(ctx, []spec{b.compare.worker()}, n, full) }},
		} {
			if way.samples == &c.other && b.compare.name == "" {
				continue
			}
			took, err := way.measure()
			if err != nil {
				return err
			}
			way.samples.add(n, took)
			b.progress.say("%s, %s, round %d: %s", way.name, users, number, rounded(took.took))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	report := func(what, unit, against string, of, with []float64) {
		b.report.addMedians(figure{Section: "sync", What: what + ", " + users, Unit: unit, Against: against, Samples: of, AgainstSamples: with})
	}
	report("full sync", usersPerSecond, "the driver alone", c.product.speeds, c.alone.speeds)
	if b.compare.name != "" {
		report("full sync, "+b.compare.name, usersPerSecond, "the driver alone", c.other.speeds, c.alone.speeds)
		report("full sync", usersPerSecond, b.compare.name, c.product.speeds, c.other.speeds)
	}
	report("the driver, reading lastSynced", usersPerSecond, "the driver alone", c.reading.speeds, c.alone.speeds)
	if known {
		report("processor time of a worker, a user", "µs", "the driver alone", c.product.process, c.alone.process)
		b.report.add(figure{
			Section: "sync", What: "processor time of Redis, a user, " + users, Value: median(c.product.redis), Unit: "µs", Against: "at most", AgainstValue: mostRedis,
		})
	}
	return c, nil
}

func rounded(d time.Duration) string { return d.Round(time.Millisecond).String() }
