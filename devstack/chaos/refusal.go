// A Redis that is not as it was: one that refuses writes for a while, which is a fault as others are, and one that is flushed. What a
// flush loses is lost, so it comes last, when all runs are judged.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// flushedLimit is how long after a flush a new run may take to be done and the schedules to be seen.
	flushedLimit = 30 * time.Second
	flushedPoll  = 200 * time.Millisecond
)

// refuseWrites makes Redis refuse all writes for a while, as it does when it misses a replica. For the promises it is gone.
func (c *chaos) refuseWrites(ctx, breaking context.Context, f fault) (err error) {
	set := func(replicas int, gone bool) error {
		for _, name := range f.concerns() {
			c.chronicle.set(goneName(name), gone)
		}
		if err := c.redis.client.ConfigSet(ctx, "min-replicas-to-write", fmt.Sprint(replicas)).Err(); err != nil {
			return fmt.Errorf("making Redis refuse writes, or accept them: %w", err)
		}
		return nil
	}
	if err := set(1, true); err != nil {
		return err
	}
	return errors.Join(pause(breaking, f.lasts), set(0, false))
}

// flush starts all processes again, flushes Redis below them, and checks that new triggers work and are seen, and that the
// schedules are.
func (c *chaos) flush(ctx context.Context) error {
	for _, m := range c.crew {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range c.crew {
		if err := m.await(ctx); err != nil {
			return err
		}
	}
	c.say("flush Redis")
	if err := c.redis.client.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("flushing Redis: %w", err)
	}
	flushed := time.Now()
	var lacking string
	for time.Since(flushed) < flushedLimit {
		if lacking = c.lackingAfterFlush(ctx); lacking == "" {
			c.say("after %s all works again", time.Since(flushed).Round(time.Millisecond))
			return nil
		}
		if err := sleep(ctx, flushedPoll); err != nil {
			return err
		}
	}
	c.record.breach(promiseFlush, "after %s: %s", flushedLimit, lacking)
	return nil
}

// lackingAfterFlush triggers a run of each job type, and says what does not work yet, or "".
func (c *chaos) lackingAfterFlush(ctx context.Context) string {
	asking := newClients(c.apis, c.seed, newRecord()) // of which nothing is judged
	for api := range c.apis {
		var health struct {
			Jobs struct{ Missing []string }
		}
		if status := asking.send(ctx, api, http.MethodGet, "/health", "", &health); status != http.StatusOK || len(health.Jobs.Missing) > 0 {
			return fmt.Sprintf("the health of %s is %d, %q is missing", api, status, health.Jobs.Missing)
		}
		for job := range intervals {
			if status := asking.send(ctx, api, http.MethodPost, "/jobs/trigger/"+job, "{}", nil); status != http.StatusOK {
				return fmt.Sprintf("%s answers a trigger of %s with %d", api, job, status)
			}
			var shown struct {
				Data struct{ Counts struct{ Completed int } }
			}
			if status := asking.send(ctx, api, http.MethodGet, "/jobs/status?job="+job, "", &shown); status != http.StatusOK || shown.Data.Counts.Completed == 0 {
				return fmt.Sprintf("%s has seen no run of %s completed, %d", api, job, status)
			}
		}
	}
	queues, err := c.redis.client.SCard(ctx, "asynq:queues").Result()
	if err != nil || int(queues) < len(intervals) {
		return fmt.Sprintf("asynq knows %d queues, %v", queues, err)
	}
	for job := range intervals {
		if n, err := c.redis.client.Exists(ctx, "codex-jobs:{"+job+"}:tick").Result(); err != nil || n == 0 {
			return fmt.Sprintf("no tick of %s is recorded, %v", job, err)
		}
	}
	return ""
}
