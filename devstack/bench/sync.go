// How fast a sync is, and whether users or memory cost more as their number grows.

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// usersPerSecond is the unit of the figures about syncs.
const usersPerSecond = "users/s"

// measureSync measures full syncs of growing numbers of users: against the driver alone, what a user costs, and the
// memory that a fresh worker needs.
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
		f := figure{Section: "sync", What: "full sync, " + count(n) + " users", Unit: usersPerSecond, Against: "the driver alone"}
		var memory float64
		err := rounds(func(number int) error {
			alone, err := b.driverAlone(ctx, n)
			if err != nil {
				return err
			}
			synced, err := b.syncOn(ctx, []spec{newWorker(nil)}, n, full, func(crew []*procs.Process) (err error) {
				peak, err := peakMemory(crew[0].PID())
				memory = max(memory, peak)
				return err
			})
			if err != nil {
				return err
			}
			f.Samples = append(f.Samples, perSecond(n, synced))
			f.AgainstSamples = append(f.AgainstSamples, perSecond(n, alone))
			b.progress.say("%s, round %d: %s; the driver alone: %s", f.What, number, rounded(synced), rounded(alone))
			return nil
		})
		if err != nil {
			return err
		}
		b.report.addMedians(f)
		measured = append(measured, size{n, 1e6 / median(f.Samples), memory})
	}
	least := measured[0]
	against := count(least.n) + " users"
	for _, m := range measured {
		b.report.add(figure{
			Section: "sync", What: "cost of one user, " + count(m.n) + " users", Value: m.cost, Unit: "µs",
			Against: against, AgainstValue: least.cost,
		})
	}
	if least.memory == 0 {
		b.note("the worker's memory, which is known on Linux only")
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

// peakMemory returns the most memory that a process has ever had resident, in MiB; 0 where that is not known.
func peakMemory(pid int) (float64, error) {
	if runtime.GOOS != "linux" {
		return 0, nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading a process's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		value, found := strings.CutPrefix(line, "VmHWM:")
		if !found {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		if err != nil {
			return 0, fmt.Errorf("reading a process's memory: %w", err)
		}
		return kib / 1024, nil
	}
	return 0, fmt.Errorf("reading a process's memory: /proc/%d/status does not say", pid)
}

func rounded(d time.Duration) string { return d.Round(time.Millisecond).String() }
