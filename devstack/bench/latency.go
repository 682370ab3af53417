// A queue that is polled costs time when it is idle, or commands; this measures both.

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
	// firstBatch is what a worker logs, at debug, when it begins with a batch.
	firstBatch = "Processing user batch"
	// fewUsers make one batch.
	fewUsers = 50
	// pollInterval is how often the worker looks at an idle queue, on average; asynq alone does so here, too.
	pollInterval = 20 * time.Millisecond
	// spread is the time over which triggers are spread, so that they come at any time between two looks.
	spread = 5 * pollInterval
	// idleTime is how long the commands to Redis are counted.
	idleTime = 5 * time.Second
	// plainQueue is that of asynq alone.
	plainQueue = "bench"
	// plainTimeout bounds the wait for asynq alone to take a task.
	plainTimeout = 10 * time.Second
)

// measureLatency measures how long a trigger takes to the first batch of its run on an idle system, and how many
// commands idling costs Redis, both against asynq alone: a Server of its own with one queue, which it looks at as often
// as the worker does.
func (b *bench) measureLatency(ctx context.Context) error {
	if err := b.users.ensure(ctx, fewUsers); err != nil {
		return err
	}
	nobody, counted, err := b.commands(ctx)
	if err != nil {
		return err
	}
	idle := figure{
		Section: "latency", What: "commands to Redis of an idle worker", Unit: "/s",
		Against: "asynq alone, one queue",
	}
	var plain, product []float64
	err = b.withPlainAsynq(func(trigger func(context.Context) (time.Duration, error)) (err error) {
		if idle.AgainstValue, _, err = b.commands(ctx); err != nil {
			return err
		}
		plain, err = b.triggers(ctx, "asynq alone", trigger)
		return err
	})
	if err != nil {
		return err
	}
	_, err = b.syncOn(ctx, []spec{newWorker(nil)}, fewUsers, full, func([]*procs.Process) (err error) {
		idle.Value, _, err = b.commands(ctx)
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
			Section: "latency", What: fmt.Sprintf("trigger to first batch, %s of %d", p.name, len(product)),
			Value: p.value(product), Unit: "ms",
			Against: "asynq alone, to the task", AgainstValue: p.value(plain),
		})
	}
	if !counted {
		b.note("what an idle worker costs Redis, as this Redis does not count commands")
		return nil
	}
	idle.Value = max(0, idle.Value-nobody)
	idle.AgainstValue = max(0, idle.AgainstValue-nobody)
	b.report.add(idle)
	return nil
}

// apiTriggers measures with the API and a worker.
func (b *bench) apiTriggers(ctx context.Context) (took []float64, err error) {
	server, client, err := newAPI(1)
	if err != nil {
		return nil, err
	}
	defer client.close()
	logging := newWorker(settings{"LOG_LEVEL": "debug"})
	err = b.with(ctx, []spec{server, logging}, func(ctx context.Context, crew []*procs.Process) error {
		took, err = b.triggers(ctx, "the product", func(ctx context.Context) (time.Duration, error) {
			var run struct{ JobID string }
			triggered := time.Now()
			if err := client.ask(ctx, http.MethodPost, "/jobs/trigger/user-sync", `{"syncType":"full"}`, &run); err != nil {
				return 0, err
			}
			began, err := awaitLine(ctx, crew[1], procs.Match{Msg: firstBatch, Since: triggered})
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
		if err := pause(ctx, rand.N(spread)); err != nil {
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
		Concurrency: 1, Queues: map[string]int{plainQueue: 1}, TaskCheckInterval: pollInterval,
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
func (b *bench) commands(ctx context.Context) (perSecond float64, counted bool, err error) {
	before, counted, err := b.totalCommands(ctx)
	if err != nil || !counted {
		return 0, counted, err
	}
	started := time.Now()
	if err := pause(ctx, idleTime); err != nil {
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
