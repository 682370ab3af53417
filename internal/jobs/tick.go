// Ticks. EnqueueTick is the only function that handles a tick. The tick key remembers the latest tick that was
// handled. A broken clock can leave a time in it that is far ahead, which would silence all ticks until then: see DistrustTick.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// KEYS: tick. ARGV: tick time (ms). Returns 1 if the tick was not handled before.
var recordTickScript = redis.NewScript(`
if tonumber(redis.call("GET", KEYS[1]) or "-1") >= tonumber(ARGV[1]) then
	return 0
end
redis.call("SET", KEYS[1], ARGV[1])
return 1
`)

// KEYS: tick. ARGV: latest time (ms) that is believed, time (ms) instead. Returns 1 if it replaced the last tick.
var distrustTickScript = redis.NewScript(`
if tonumber(redis.call("GET", KEYS[1]) or "-1") <= tonumber(ARGV[1]) then
	return 0
end
redis.call("SET", KEYS[1], ARGV[2])
return 1
`)

// KEYS: tick, asynq's task, completed, archived. ARGV: ID, tick time (ms). Returns 1 if it removed the task of a run that has
// ended, whose tick was not handled.
var removeRepeatedScript = redis.NewScript(`
if tonumber(redis.call("GET", KEYS[1]) or "-1") >= tonumber(ARGV[2]) then
	return 0
end
local state = redis.call("HGET", KEYS[2], "state")
if state ~= "completed" and state ~= "archived" then
	return 0
end
redis.call("ZREM", KEYS[3], ARGV[1])
redis.call("ZREM", KEYS[4], ARGV[1])
redis.call("UNLINK", KEYS[2])
return 1
`)

// Tick is what one call of EnqueueTick did. The zero Tick means that the tick was handled before, or by another scheduler.
type Tick struct {
	// Enqueued is true if the call put the tick's run into the queue.
	Enqueued bool
	// ServedBy is the ID of the waiting run that serves the tick, if the call was the first to find that conflict.
	ServedBy string
}

// EnqueueTick enqueues the run of the tick at tickTime, unless the tick was handled before or a waiting run serves it. Any
// number of schedulers can call it, and again after an error: they enqueue one run. If it returns an error with Enqueued, the
// run is in the queue, but the tick is not recorded as handled.
func (j *Jobs) EnqueueTick(ctx context.Context, def tasks.Definition, tickTime time.Time) (Tick, error) {
	payload, err := def.ScheduledPayload()
	if err != nil {
		return Tick{}, err
	}
	data, err := def.EncodePayload(payload)
	if err != nil {
		return Tick{}, err
	}
	id := tasks.TickID(def.Name, tickTime)
	key, err := j.takeTick(ctx, def, payload.UniqueKey(), id, data)
	switch {
	case err != nil:
		return Tick{}, fmt.Errorf("enqueueing the tick of %s at %s: %w", def.Name, tickTime.Format(time.RFC3339), err)
	case key.handled:
		return Tick{}, nil
	case key.conflict != "":
		first, err := j.recordTick(ctx, def, tickTime)
		if err != nil || !first {
			return Tick{}, err
		}
		return Tick{ServedBy: key.conflict}, nil
	}
	var tick Tick
	if tick.Enqueued, err = j.enqueueRun(ctx, def, id, data, Trigger{Kind: TriggeredByTick}); err != nil {
		return Tick{}, err
	}
	if !tick.Enqueued { // after a clock was set back, ticks have the IDs of runs that have ended
		repeated, err := j.removeRepeated(ctx, def, id)
		if err != nil {
			return Tick{}, err
		}
		if repeated {
			if tick.Enqueued, err = j.enqueueRun(ctx, def, id, data, Trigger{Kind: TriggeredByTick}); err != nil {
				return Tick{}, err
			}
		}
	}
	_, err = j.recordTick(ctx, def, tickTime)
	return tick, err
}

// takeTick takes a unique key for the run of a tick. If runs of the job type need none, it only looks whether the tick was
// handled.
func (j *Jobs) takeTick(ctx context.Context, def tasks.Definition, key string, id tasks.RunID, data []byte) (keyAnswer, error) {
	if def.Unique.Mode != tasks.UniqueNever {
		return j.takeKey(ctx, def, key, id, data, id.Reference)
	}
	last, err := j.LastTick(ctx, def)
	return keyAnswer{handled: !last.Before(id.Reference)}, err
}

// removeRepeated removes the run with the ID if it has ended and its tick was not handled. It reports whether it did.
func (j *Jobs) removeRepeated(ctx context.Context, def tasks.Definition, id tasks.RunID) (bool, error) {
	keys := []string{
		j.keys.tick(def.Name), asynqKey(def.Queue(), "t:"+id.String()), asynqKey(def.Queue(), "completed"), asynqKey(def.Queue(), "archived"),
	}
	n, err := removeRepeatedScript.Run(ctx, j.rdb, keys, id.String(), millis(id.Reference)).Int()
	if err != nil {
		return false, fmt.Errorf("removing the earlier run of the tick %s: %w", id, err)
	}
	return n == 1, nil
}

// DistrustTick replaces the last tick with another time if it is later than the latest time that is believed: then a broken
// clock has left it. It reports whether it did.
func (j *Jobs) DistrustTick(ctx context.Context, def tasks.Definition, latest, instead time.Time) (bool, error) {
	n, err := distrustTickScript.Run(ctx, j.rdb, []string{j.keys.tick(def.Name)}, millis(latest), millis(instead)).Int()
	if err != nil {
		return false, fmt.Errorf("replacing the last tick of %s: %w", def.Name, err)
	}
	return n == 1, nil
}

// recordTick records the tick at tickTime as handled. It returns true if the tick was not handled before.
func (j *Jobs) recordTick(ctx context.Context, def tasks.Definition, tickTime time.Time) (first bool, err error) {
	n, err := recordTickScript.Run(ctx, j.rdb, []string{j.keys.tick(def.Name)}, millis(tickTime)).Int()
	if err != nil {
		return false, fmt.Errorf("recording the tick of %s at %s: %w", def.Name, tickTime.Format(time.RFC3339), err)
	}
	return n == 1, nil
}

// FirstTick records the tick at tickTime as handled if Redis knows of none: on a new system the first tick is the next one, and a
// Redis that was emptied learns the last one again.
func (j *Jobs) FirstTick(ctx context.Context, def tasks.Definition, tickTime time.Time) error {
	if err := j.rdb.SetNX(ctx, j.keys.tick(def.Name), tickTime.UnixMilli(), 0).Err(); err != nil {
		return fmt.Errorf("recording the first tick of %s: %w", def.Name, err)
	}
	return nil
}

// LastTick returns the time of the latest tick that was handled, or the zero time if none ever was.
func (j *Jobs) LastTick(ctx context.Context, def tasks.Definition) (time.Time, error) {
	ms, err := j.rdb.Get(ctx, j.keys.tick(def.Name)).Int64()
	if errors.Is(err, redis.Nil) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the last tick of %s: %w", def.Name, err)
	}
	return time.UnixMilli(ms).UTC(), nil
}
