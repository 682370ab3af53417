// What the workers and Redis use: processor time and memory. It is known on Linux only.

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// tick is the unit of the times in /proc. Linux has it so on all platforms.
const tick = 10 * time.Millisecond

// known is true where the system says what a process uses.
const known = runtime.GOOS == "linux"

// used returns what the processes, and Redis, have used so far.
func (b *bench) used(ctx context.Context, crew []*procs.Process) (cost, error) {
	var c cost
	for _, p := range crew {
		spent, err := processorTime(p.PID())
		if err != nil {
			return cost{}, err
		}
		peak, err := peakMemory(p.PID())
		if err != nil {
			return cost{}, err
		}
		c.process, c.memory = c.process+spent, max(c.memory, peak)
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	info, err := b.rdb.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return cost{}, fmt.Errorf("asking Redis for its processor time: %w", err)
	}
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		seconds, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			return cost{}, fmt.Errorf("reading Redis' processor time: %w", err)
		}
		c.redis += time.Duration(seconds * float64(time.Second))
	}
	return c, nil
}

// ownTime returns the processor time of this process.
func ownTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("reading the own processor time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// processorTime returns the processor time of a process; 0 where that is not known.
func processorTime(pid int) (time.Duration, error) {
	if !known {
		return 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading a process's time: %w", err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // behind the name, which can have blanks
	var ticks int
	for _, i := range []int{11, 12} { // utime and stime
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, fmt.Errorf("reading a process's time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// peakMemory returns the most memory that a process has ever had resident, in MiB; 0 where that is not known.
func peakMemory(pid int) (float64, error) {
	if !known {
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
