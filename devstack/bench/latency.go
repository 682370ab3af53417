// How soon a triggered run starts, and what a worker costs while there is nothing to do: the one is easily bought with the
// other, so both are measured.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// handlerStarts is what the handler of a run logs first.
	handlerStarts = "Starting user sync job"
	// fewUsers make one batch.
	fewUsers = 50
	// calm is the time after a run in which its worker stops looking at the queue; triggers come at any time after it.
	calm, spread = 1500 * time.Millisecond, 500 * time.Millisecond
	// idleTime is how long an idle worker is watched: it does some things only once in a while.
	idleTime = time.Minute
	// plainTime is how long commands are counted where all of them come all the time.
	plainTime = 5 * time.Second
	// plainInterval is how often asynq alone looks at its queue, on average.
	plainInterval = 20 * time.Millisecond
	// plainQueue is the queue of asynq alone.
	plainQueue = "bench"
	// plainTimeout bounds the wait for asynq alone to take a task.
	plainTimeout = 10 * time.Second
	// What the product promises of an idle worker: commands to Redis in a second, and percent of a core.
	mostCommands, mostCPU = 20, 0.5
)

// measureLatency measures how long a trigger takes to the start of its run's handler on an idle system, against asynq alone
// that looks at its queue all the time, and what an idle worker costs.
func (b *bench) measureLatency(ctx context.Context) error {
	if err := b.users.ensure(ctx, fewUsers); err != nil {
		return err
	}
	others, counted, err := b.commands(ctx, plainTime)
	if err != nil {
		return err
	}
	var busy float64
	var plain, product []float64
	err = b.withPlainAsynq(func(trigger func(context.Context) (time.Duration, error)) (err error) {
		if busy, _, err = b.commands(ctx, plainTime); err != nil {
			return err
		}
		plain, err = b.triggers(ctx, "asynq alone", trigger)
		return err
	})
	if err != nil {
		return err
	}
	if product, err = b.apiTriggers(ctx); err != nil {
		return err
	}
	for _, p := range []struct {
		name  string
		value func([]float64) float64
	}{
		{"median", median},
		{"p99", func(v []float64) float64 { return percentile(v, 99) }},
	} {
		b.report.add(figure{
			Section: "latency", What: fmt.Sprintf("trigger to the handler's start, %s of %d", p.name, len(product)),
			Value: p.value(product), Unit: "ms",
			Against: "asynq alone, a look each 20 ms", AgainstValue: p.value(plain),
		})
	}
	return b.measureIdle(ctx, others, busy-others, counted)
}

// measureIdle measures what an idle worker costs. Others is how many commands Redis serves without one, and plain how many
// asynq alone sends.
func (b *bench) measureIdle(ctx context.Context, others, plain float64, counted bool) error {
	return b.with(ctx, []spec{newWorker(nil)}, func(ctx context.Context, crew []*procs.Process) error {
		if err := pause(ctx, calm); err != nil {
			return err
		}
		before, known, err := cpuTime(crew[0].PID())
		if err != nil {
			return err
		}
		started := time.Now()
		commands, _, err := b.commands(ctx, idleTime)
		if err != nil {
			return err
		}
		after, _, err := cpuTime(crew[0].PID())
		if err != nil {
			return err
		}
		if counted {
			commands = max(0, commands-others)
			b.report.add(figure{
				Section: "latency", What: "commands to Redis of an idle worker", Value: commands, Unit: "/s",
				Against: "asynq alone, one queue", AgainstValue: max(0, plain),
			})
			b.report.add(figure{
				Section: "latency", What: "the same", Value: commands, Unit: "/s", Against: "at most", AgainstValue: mostCommands,
			})
		} else {
			b.note("what an idle worker costs Redis, as this Redis does not count commands")
		}
		if known {
			b.report.add(figure{
				Section: "latency", What: "processor time of an idle worker", Unit: "% of a core", Against: "at most", AgainstValue: mostCPU,
				Value: 100 * (after - before).Seconds() / time.Since(started).Seconds(),
			})
		}
		return nil
	})
}

// clockTick is the unit of processor time in /proc, the same on all platforms of Linux.
const clockTick = 10 * time.Millisecond

// cpuTime returns the processor time that a process has used, and false where that is not known.
func cpuTime(pid int) (used time.Duration, known bool, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("reading the processor time of %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // behind the name, which may hold anything
	fields := strings.Fields(rest)
	for _, field := range []int{11, 12} { // utime and stime, see proc(5)
		if len(fields) <= field {
			return 0, false, nil
		}
		ticks, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return 0, false, fmt.Errorf("reading the processor time of %d: %w", pid, err)
		}
		used += time.Duration(ticks) * clockTick
	}
	return used, true, nil
}

// apiTriggers measures with the API and a worker.
func (b *bench) apiTriggers(ctx context.Context) (took []float64, err error) {
	server, client, err := newAPI(1)
	if err != nil {
		return nil, err
	}
	defer client.close()
	err = b.with(ctx, []spec{server, newWorker(nil)}, func(ctx context.Context, crew []*procs.Process) error {
		took, err = b.triggers(ctx, "the product", func(ctx context.Context) (time.Duration, error) {
			var run struct{ JobID string }
			triggered := time.Now()
			if err := client.ask(ctx, http.MethodPost, "/jobs/trigger/user-sync", `{"syncType":"full"}`, &run); err != nil {
				return 0, err
			}
			began, err := awaitLine(ctx, crew[1], procs.Match{Msg: handlerStarts, Since: triggered})
			if err != nil {
				return 0, err
			}
			_, err = b.awaitRun(ctx, run.JobID, fewUsers)
			return began.Time().Sub(triggered), err
		})
		return err
	})
	return took, err
}

// triggers calls trigger many times, and once before that, and returns how long each took in milliseconds.
func (b *bench) triggers(ctx context.Context, what string, trigger func(context.Context) (time.Duration, error)) ([]float64, error) {
	bar := b.progress.bar(fmt.Sprintf("%d triggers, %s", b.plan.triggers, what), b.plan.triggers)
	defer bar.done()
	if _, err := trigger(ctx); err != nil {
		return nil, err
	}
	var took []float64
	for range b.plan.triggers {
		if err := pause(ctx, calm+rand.N(spread)); err != nil {
			return nil, err
		}
		d, err := trigger(ctx)
		if err != nil {
			return nil, err
		}
		took = append(took, 1000*d.Seconds())
		bar.add(1)
	}
	return took, nil
}

// errNotTaken says that asynq alone is not well.
var errNotTaken = errors.New("asynq alone did not take a task")

// withPlainAsynq calls do while asynq alone runs. The function that do gets enqueues a task and returns after how long it
// was taken.
func (b *bench) withPlainAsynq(do func(trigger func(context.Context) (time.Duration, error)) error) error {
	taken := make(chan time.Time, 1)
	server := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{
		Concurrency: 1, Queues: map[string]int{plainQueue: 1}, TaskCheckInterval: plainInterval,
		Logger: telemetry.NewAsynqLogger(quiet()), LogLevel: asynq.ErrorLevel,
	})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		taken <- time.Now()
		return nil
	}))
	if err != nil {
		return fmt.Errorf("starting asynq alone: %w", err)
	}
	defer server.Shutdown()
	client := asynq.NewClientFromRedisClient(b.rdb)
	return do(func(ctx context.Context) (time.Duration, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, plainTimeout, errNotTaken)
		defer cancel()
		enqueued := time.Now()
		if _, err := client.EnqueueContext(ctx, asynq.NewTask(plainQueue, nil, asynq.Queue(plainQueue))); err != nil {
			return 0, fmt.Errorf("enqueueing a task: %w", err)
		}
		select {
		case at := <-taken:
			return at.Sub(enqueued), nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
}

// commands returns how many commands Redis serves in a second while nothing is done, those within scripts included, and
// false where it does not count them.
func (b *bench) commands(ctx context.Context, over time.Duration) (perSecond float64, counted bool, err error) {
	before, counted, err := b.totalCommands(ctx)
	if err != nil || !counted {
		return 0, counted, err
	}
	started := time.Now()
	if err := pause(ctx, over); err != nil {
		return 0, true, err
	}
	after, _, err := b.totalCommands(ctx)
	return float64(after-before-1) / time.Since(started).Seconds(), true, err // one of them is our own question
}

func (b *bench) totalCommands(ctx context.Context) (total int64, counted bool, err error) {
	if os.Getenv("DEVSTACK_REDIS") == embeddedRedis {
		return 0, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	info, err := b.rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, false, fmt.Errorf("counting Redis' commands: %w", err)
	}
	total, err = sumCalls(info)
	return total, true, err
}

// sumCalls adds up the calls in lines such as "cmdstat_get:calls=21,usec=175,usec_per_call=8.33".
func sumCalls(info string) (total int64, err error) {
	for line := range strings.Lines(info) {
		if !strings.HasPrefix(line, "cmdstat_") {
			continue
		}
		_, rest, _ := strings.Cut(line, ":calls=")
		number, _, _ := strings.Cut(rest, ",")
		calls, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("counting Redis' commands: %w", err)
		}
		total += calls
	}
	return total, nil
}
