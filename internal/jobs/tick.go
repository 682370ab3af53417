// Ticks: the one place where the run of a tick is enqueued, and what is remembered of ticks.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// KEYS: tick. ARGV: tick time (ms). Returns 1 when the tick was not handled before.
var endTickScript = redis.NewScript(`
if tonumber(redis.call("GET", KEYS[1]) or "-1") >= tonumber(ARGV[1]) then
	return 0
end
redis.call("SET", KEYS[1], ARGV[1])
return 1
`)

// Tick is what a call of EnqueueTick did. The zero Tick is one that was handled before, or by another scheduler.
type Tick struct {
	// Enqueued is true when the call put the tick's run into the queue.
	Enqueued bool
	// ServedBy is the ID of a waiting run of the same kind that serves the tick, when the call was the first to find it.
	ServedBy string
}

// EnqueueTick enqueues the run of the tick at tickTime, unless the tick was handled before or a run that waits serves it.
// It is safe to call it again after an error, and in any number of schedulers: they enqueue one run. An error beside
// Enqueued says that the run is in the queue, but that the tick could not be recorded.
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
	claimed, err := j.claim(ctx, def, payload.UniqueKey(), id, data, millis(tickTime))
	switch {
	case err != nil:
		return Tick{}, fmt.Errorf("claiming the tick of %s at %s: %w", def.Name, tickTime.Format(time.RFC3339), err)
	case claimed.handled:
		return Tick{}, nil
	case claimed.waiting != "":
		first, err := j.endTick(ctx, def, tickTime)
		if err != nil || !first {
			return Tick{}, err
		}
		return Tick{ServedBy: claimed.waiting}, nil
	}
	var tick Tick
	if tick.Enqueued, err = j.enqueue(ctx, def, id, data); err != nil {
		return Tick{}, err
	}
	_, err = j.endTick(ctx, def, tickTime)
	return tick, err
}

// endTick records the tick at tickTime as handled, which must outlive its task. It reports whether it was not before.
func (j *Jobs) endTick(ctx context.Context, def tasks.Definition, tickTime time.Time) (first bool, err error) {
	n, err := endTickScript.Run(ctx, j.rdb, []string{tickKey(def.Name)}, millis(tickTime)).Int()
	if err != nil {
		return false, fmt.Errorf("recording the tick of %s at %s: %w", def.Name, tickTime.Format(time.RFC3339), err)
	}
	return n == 1, nil
}

// FirstTick records the tick at tickTime as handled if no tick ever was: on a new system the first tick is the next one.
func (j *Jobs) FirstTick(ctx context.Context, def tasks.Definition, tickTime time.Time) error {
	if err := j.rdb.SetNX(ctx, tickKey(def.Name), tickTime.UnixMilli(), 0).Err(); err != nil {
		return fmt.Errorf("recording the first tick of %s: %w", def.Name, err)
	}
	return nil
}

// LastTick returns the time of the latest tick that was handled; the zero time when there was none ever.
func (j *Jobs) LastTick(ctx context.Context, def tasks.Definition) (time.Time, error) {
	ms, err := j.rdb.Get(ctx, tickKey(def.Name)).Int64()
	if errors.Is(err, redis.Nil) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the last tick of %s: %w", def.Name, err)
	}
	return time.UnixMilli(ms).UTC(), nil
}
