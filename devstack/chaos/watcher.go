// The watcher asks Redis itself what was enqueued and how runs ended, without a proxy.

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// pollInterval is the pause between two looks for ended runs. Fewer runs end meanwhile than Redis keeps.
	pollInterval = 250 * time.Millisecond
	// pulseInterval is the pause between two pings, and slowPulse how long a ping takes when Redis, or the machine, has too
	// much to do. The API waits half a second for Redis.
	pulseInterval = 50 * time.Millisecond
	slowPulse     = 200 * time.Millisecond
	// listSize is larger than any list of runs.
	listSize = 1000
	// The keys whose changes matter: tasks, and latest ticks.
	taskEvents  = "__keyspace@0__:asynq:{*}:t:*"
	tickEvents  = "__keyspace@0__:codex-jobs:{*}:tick"
	eventPrefix = "__keyspace@0__:"
)

// watcher fills the record from Redis. It is notified of each new task, because a task that is enqueued again after its
// removal would leave no other trace.
type watcher struct {
	rdb       *redis.Client
	inspector *asynq.Inspector
	jobs      []string
	record    *record
	chronicle *chronicle

	events    *redis.PubSub // of the Redis that runs
	listening sync.WaitGroup
}

func newWatcher(rdb *redis.Client, r *record, c *chronicle) *watcher {
	return &watcher{
		rdb: rdb, inspector: asynq.NewInspectorFromRedisClient(rdb), jobs: codex.Registry().Names(), record: r, chronicle: c,
	}
}

// listen records Redis' notifications, until Redis is killed or close is called. It returns once it is subscribed. Call it
// before any process can use a Redis that was just started.
func (w *watcher) listen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	events := w.rdb.PSubscribe(ctx, taskEvents, tickEvents)
	for range 2 {
		if _, err := events.Receive(ctx); err != nil {
			return errors.Join(fmt.Errorf("subscribing to Redis' events: %w", err), events.Close())
		}
	}
	// The client's pool repeats the error of the Redis that was killed, for up to a second, without asking the new one.
	err := w.rdb.Ping(ctx).Err()
	for ; err != nil && ctx.Err() == nil; err = w.rdb.Ping(ctx).Err() {
		time.Sleep(pulseInterval)
	}
	if err == nil {
		err = w.recordMissed(ctx)
	}
	if err != nil {
		return errors.Join(err, events.Close())
	}
	w.close() // of the former Redis
	w.events = events
	w.listening.Go(func() {
		for {
			message, err := events.ReceiveMessage(context.Background()) // ends with the connection
			if err != nil {
				return
			}
			w.heard(message)
		}
	})
	return nil
}

// close ends listening.
func (w *watcher) close() {
	if w.events != nil {
		_ = w.events.Close() // the connection is not used any more
	}
	w.listening.Wait()
}

// recordMissed records tasks whose notification was lost when Redis was killed.
func (w *watcher) recordMissed(ctx context.Context) error {
	for _, job := range w.jobs {
		prefix := "asynq:{" + job + "}:t:"
		keys := w.rdb.Scan(ctx, 0, prefix+"*", listSize).Iterator()
		for keys.Next(ctx) {
			w.record.isThere(job, strings.TrimPrefix(keys.Val(), prefix), time.Now())
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("looking for the tasks of %s: %w", job, err)
		}
		if err := w.readTick(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) heard(m *redis.Message) {
	key := strings.TrimPrefix(m.Channel, eventPrefix)
	_, rest, _ := strings.Cut(key, "{")
	queue, rest, _ := strings.Cut(rest, "}:")
	id, isTask := strings.CutPrefix(rest, "t:")
	switch {
	case isNeighbours(queue):
	case isTask && m.Payload == "new":
		w.record.wasEnqueued(queue, id, time.Now())
	case !isTask && m.Payload == "set":
		ctx, cancel := context.WithTimeout(context.Background(), questionTimeout)
		defer cancel()
		_ = w.readTick(ctx, queue) // when Redis is killed, the next one is asked again
	}
}

// readTick records the latest tick of a job type that the product has handled.
func (w *watcher) readTick(ctx context.Context, job string) error {
	text, err := w.rdb.Get(ctx, "codex-jobs:{"+job+"}:tick").Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the latest tick of %s: %w", job, err)
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		w.record.tickRecorded(tasks.TickID(job, time.UnixMilli(ms)).String(), time.Now())
	}
	return nil
}

// poll records runs that have ended, until ctx ends.
func (w *watcher) poll(ctx context.Context) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			_ = w.look() // fails while Redis is away
		case <-ctx.Done():
			return
		}
	}
}

// slowName is the chronicle's name of the times in which Redis answers late without a fault.
const slowName = "Redis slow"

// watchLatency records when Redis is slow, until ctx ends.
func (w *watcher) watchLatency(ctx context.Context) {
	due := time.Now()
	for ctx.Err() == nil {
		_ = w.rdb.Ping(ctx).Err() // fails while Redis is away, which the plan knows
		if late := time.Since(due); late > slowPulse {
			w.chronicle.add(slowName, span{due, time.Now()})
		}
		due = time.Now().Add(pulseInterval)
		_ = sleep(ctx, pulseInterval) // ctx is looked at above
	}
}

// look records the runs that have ended and are still kept.
func (w *watcher) look() error {
	for _, job := range w.jobs {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			w.inspector.ListCompletedTasks, w.inspector.ListArchivedTasks,
		} {
			ended, err := list(job, asynq.PageSize(listSize))
			if errors.Is(err, asynq.ErrQueueNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("listing ended runs of %s: %w", job, err)
			}
			for _, info := range ended {
				w.record.hasEnded(info, time.Now())
			}
		}
	}
	return nil
}

// busy returns the tasks that have not ended: pending, active, and waiting for a retry.
func (w *watcher) busy() ([]string, error) {
	var busy []string
	for _, def := range codex.Registry().All() {
		for _, queue := range []string{def.Queue(), def.RangeQueue()} {
			for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
				w.inspector.ListPendingTasks, w.inspector.ListActiveTasks, w.inspector.ListRetryTasks, w.inspector.ListScheduledTasks,
			} {
				unended, err := list(queue, asynq.PageSize(listSize))
				if errors.Is(err, asynq.ErrQueueNotFound) {
					continue
				}
				if err != nil {
					return nil, fmt.Errorf("listing the tasks of %s: %w", queue, err)
				}
				for _, info := range unended {
					text := fmt.Sprintf("%s (%s", info.ID, info.State)
					if info.IsOrphaned {
						text += ", orphaned"
					}
					busy = append(busy, text+")")
				}
			}
		}
	}
	return busy, nil
}

// keys returns all keys that Redis has, but those of the other deployment.
func (w *watcher) keys(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	var keys []string
	found := w.rdb.Scan(ctx, 0, "*", listSize).Iterator()
	for found.Next(ctx) {
		if !isNeighbours(found.Val()) {
			keys = append(keys, found.Val())
		}
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("listing Redis' keys: %w", err)
	}
	return keys, nil
}

// claimed returns the ID of the run that a unique key names.
func (w *watcher) claimed(ctx context.Context, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	id, err := w.rdb.HGet(ctx, key, "id").Result()
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", key, err)
	}
	return id, nil
}
