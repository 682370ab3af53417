// Delayed runs: triggers that say when their run is to start.
//
// A delayed run is enqueued at once, as scheduled, so nothing but asynq keeps it. A worker's look, or asynq's forwarder, moves
// it to the pending tasks when it is due. asynq knows times in whole seconds, and rounds them down: so its time is the next
// whole second.
//
// The run takes its unique key when it is due, by force: until then no trigger and no tick coalesces with it, and of those that
// are due the last one has the key. No process acts at that moment. But only takeKeyScript reads the key. So a sorted set has
// the runs that will have it, and takeKeyScript first gives the key to those that are due by then. A run that has begun no
// longer needs the key.
//
// The set is written after the task. A process that dies in between has not answered its trigger: the run starts all the same,
// and only does not take its key. The same holds if Redis loses the entry.

package jobs

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// KEYS: due. ARGV: ID, time (ms) when it is due, now (ms), TTL (s) from the last time on. Without that the set would stay when
// runs are deleted by other means than ours, and the key is never used again.
var willTakeKeyScript = redis.NewScript(`
redis.call("ZADD", KEYS[1], ARGV[2], ARGV[1])
local last = redis.call("ZRANGE", KEYS[1], -1, -1, "WITHSCORES")[2]
redis.call("EXPIRE", KEYS[1], math.ceil((last - ARGV[3]) / 1000) + ARGV[4])
return 1
`)

// delay enqueues a run that is due at a time. Its unique key is the given one.
func (j *Jobs) delay(
	ctx context.Context, def tasks.Definition, key string, data []byte, at time.Time, by Trigger,
) (Accepted, error) {
	at = roundUp(at, time.Millisecond) // as IDs have it
	id, err := j.enqueueOwn(ctx, def, at, data, by, asynq.ProcessAt(roundUp(at, time.Second)))
	if err != nil {
		return Accepted{}, err
	}
	if def.Unique.Mode != tasks.UniqueNever {
		keys := []string{j.keys.due(def.Name, key)}
		err := willTakeKeyScript.Run(ctx, j.rdb, keys, id.String(), millis(at), millis(time.Now()), runSeconds).Err()
		if err != nil { // a client that is told of it would trigger a second run
			j.log.Warn("A delayed run will not take its unique key", "jobId", id.String(), "error", err)
		}
	}
	return Accepted{ID: id, RunAt: id.Reference}, nil
}

// roundUp returns the first multiple of d, since the zero time, at or after t.
func roundUp(t time.Time, d time.Duration) time.Time {
	if down := t.Truncate(d); down.Before(t) {
		return down.Add(d)
	}
	return t
}

// isDue reports whether a run that asynq has in the given state is not delayed, or no longer.
func isDue(id tasks.RunID, state asynq.TaskState) bool {
	return state != asynq.TaskStateScheduled || !id.Reference.After(time.Now())
}
