// The server for measurements must cost what a real one does. Two figures tell: how fast the driver alone is on it, and how an
// old version of the product compares, of which it is known how it compared on a MongoDB-class server with durable storage.

package main

import (
	"context"
	"errors"
	"fmt"
)

const (
	// calibrationRevision is the old version.
	calibrationRevision = "a5ca426"
	calibrationUsers    = 100_000
)

// What a MongoDB-class server with durable storage on two cores gives: users/s, and the old version's ratio to the driver alone.
var (
	driverBounds   = bounds{15_000, 18_500}
	revisionBounds = bounds{0.67, 0.70}
)

// bounds are the least and the most of a figure, as people write it.
type bounds struct{ least, most float64 }

// hold reports whether a figure is within the bounds.
func (b bounds) hold(v float64) bool {
	const exactly = 0.005 // two decimals are written
	return v >= b.least-exactly && v < b.most+exactly
}

// calibrate measures both figures, and returns an error if the server does not cost what a real one does.
func (b *bench) calibrate(ctx context.Context) (err error) {
	b.progress.say("building %s, to see what the server costs", calibrationRevision)
	old, err := checkOut(ctx, b.repository(), calibrationRevision)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.remove()) }()
	if err := b.users.ensure(ctx, calibrationUsers); err != nil {
		return err
	}
	users := count(calibrationUsers) + " users"
	driver := figure{Section: "calibration", What: "the driver alone, " + users, Unit: usersPerSecond, Against: "from 15,000 to 18,500; the middle", AgainstValue: (driverBounds.least + driverBounds.most) / 2}
	sync := figure{Section: "calibration", What: "full sync, " + calibrationRevision + ", " + users, Unit: usersPerSecond, Against: "the driver alone"}
	if err := rounds(func(number int) error {
		alone, err := b.driverAlone(ctx, calibrationUsers, leastFields)
		if err != nil {
			return err
		}
		synced, err := b.syncOn(ctx, []spec{old.worker()}, calibrationUsers, full)
		if err != nil {
			return err
		}
		sync.Samples = append(sync.Samples, perSecond(calibrationUsers, synced.took))
		sync.AgainstSamples = append(sync.AgainstSamples, perSecond(calibrationUsers, alone.took))
		b.progress.say("%s, round %d: %s; the driver alone: %s", sync.What, number, rounded(synced.took), rounded(alone.took))
		return nil
	}); err != nil {
		return err
	}
	driver.Value = median(sync.AgainstSamples)
	b.report.add(driver)
	ratio := b.report.addMedians(sync)
	switch {
	case !driverBounds.hold(driver.Value):
		return fmt.Errorf("the driver alone updated %s users/s, and not 15,000 to 18,500: the machine is busy, or too slow or too fast for the costs of the server", number(driver.Value))
	case !revisionBounds.hold(ratio):
		return fmt.Errorf("%s was at %s of the driver alone, and not at 0.67 to 0.70: the server does not cost what a real one does, or the machine is busy", calibrationRevision, number(ratio))
	}
	return nil
}
