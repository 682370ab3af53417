// What asynq keeps of queues, read without asynq: its GetQueueInfo returns an error for a queue with one broken entry, and for
// a queue that Redis has lost from asynq:queues. None of this writes, so it also works with a Redis that refuses writes.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// queueState is how many tasks a queue has in each of asynq's states, and whether it is paused.
type queueState struct {
	active, pending, scheduled, retry, archived, completed int

	paused bool
	oldest string // the ID of the pending task that is next; "" without one
}

// readQueues returns the states of the queues. It asks Redis once.
func (j *Jobs) readQueues(ctx context.Context, queues ...string) ([]queueState, error) {
	type answer struct {
		active, pending, scheduled, retry, archived, completed, paused *redis.IntCmd
		oldest                                                         *redis.StringCmd
	}
	answers := make([]answer, len(queues))
	pipeline := j.rdb.Pipeline()
	for i, queue := range queues {
		answers[i] = answer{
			active: pipeline.LLen(ctx, asynqKey(queue, "active")), pending: pipeline.LLen(ctx, asynqKey(queue, "pending")),
			scheduled: pipeline.ZCard(ctx, asynqKey(queue, "scheduled")), retry: pipeline.ZCard(ctx, asynqKey(queue, "retry")),
			archived: pipeline.ZCard(ctx, asynqKey(queue, "archived")), completed: pipeline.ZCard(ctx, asynqKey(queue, "completed")),
			paused: pipeline.Exists(ctx, asynqKey(queue, "paused")), oldest: pipeline.LIndex(ctx, asynqKey(queue, "pending"), -1),
		}
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("reading the queues: %w", err)
	}
	states := make([]queueState, len(queues))
	for i, a := range answers {
		n := func(c *redis.IntCmd) int { return int(c.Val()) }
		states[i] = queueState{
			active: n(a.active), pending: n(a.pending), scheduled: n(a.scheduled), retry: n(a.retry),
			archived: n(a.archived), completed: n(a.completed), paused: n(a.paused) > 0, oldest: a.oldest.Val(),
		}
	}
	return states, nil
}

// counts returns the counts in the words of the API.
func (s queueState) counts() Counts {
	return Counts{Active: s.active, Waiting: s.pending, Completed: s.completed, Failed: s.archived, Delayed: s.retry + s.scheduled}
}

// pendingSince returns since when the oldest pending task of each queue has been pending. It is the zero time if there is none,
// or if asynq does not know it: the task was released, or retried by hand. It asks Redis once.
func (j *Jobs) pendingSince(ctx context.Context, queues []string, states []queueState) ([]time.Time, error) {
	since := make([]time.Time, len(queues))
	answers := make([]*redis.StringCmd, len(queues))
	pipeline := j.rdb.Pipeline()
	for i, s := range states {
		if s.oldest != "" {
			answers[i] = pipeline.HGet(ctx, asynqKey(queues[i], "t:"+s.oldest), "pending_since")
		}
	}
	if pipeline.Len() == 0 {
		return since, nil
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("looking for the oldest tasks: %w", err)
	}
	for i, a := range answers {
		if a == nil {
			continue
		}
		if ns, err := strconv.ParseInt(a.Val(), 10, 64); err == nil && ns > 0 {
			since[i] = time.Unix(0, ns)
		}
	}
	return since, nil
}

// taskState returns asynq's state of a task. It is "" if there is no such task, or only its ID.
func (j *Jobs) taskState(ctx context.Context, queue, id string) (string, error) {
	fields, err := j.rdb.HMGet(ctx, asynqKey(queue, "t:"+id), "msg", "state").Result()
	if err != nil {
		return "", fmt.Errorf("looking up %s: %w", id, err)
	}
	if fields[0] == nil {
		return "", nil
	}
	state, _ := fields[1].(string)
	return state, nil
}

// IsActive reports whether the task is active for asynq.
func (j *Jobs) IsActive(ctx context.Context, queue, id string) (bool, error) {
	state, err := j.taskState(ctx, queue, id)
	return state == asynq.TaskStateActive.String(), err
}
