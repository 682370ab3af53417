// Putting runs into queues. Of the runs of a job type with the same unique key at most one waits.
//
// The unique key has an entry in Redis, which names a run. To enqueue a run, a process first takes the key for it. The
// worker frees the key when the run begins. So the run that a key names has not begun, and one of three things is true:
//
//   - It waits in the queue. Then the new run has a conflict, and the one that waits serves its trigger or tick.
//   - A process is just enqueueing it. Then any process can do so too: the second task's ID is there already.
//   - The process that took the key died. Then the new run gets the key.
//
// For the run of a tick the same script checks that the tick was not handled before. The start of the run records the tick as
// handled, too. So the run of a tick is enqueued once, whatever happens to its task meanwhile. See tick.go.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// keyTimeout is how old an entry of a unique key is before a run that is not in the queue loses it. It is well above the
	// time that enqueueing can take.
	keyTimeout = 30 * time.Second
	// keyTries bounds how often a process tries to take a unique key while runs that have it keep beginning.
	keyTries = 10
)

// KEYS: unique key, tick. ARGV: ID, payload, now (ms), ID of the run that loses the key or "", tick time (ms) or "".
// Returns {"handled"}, {"taken"} or {"conflict", ID, payload, time (ms)}.
var takeKeyScript = redis.NewScript(`
if ARGV[5] ~= "" and tonumber(redis.call("GET", KEYS[2]) or "-1") >= tonumber(ARGV[5]) then
	return {"handled"}
end
local id = redis.call("HGET", KEYS[1], "id")
if id and id ~= ARGV[4] then
	return {"conflict", id, redis.call("HGET", KEYS[1], "payload"), redis.call("HGET", KEYS[1], "time")}
end
redis.call("HSET", KEYS[1], "id", ARGV[1], "payload", ARGV[2], "time", ARGV[3])
return {"taken"}
`)

// Accepted is the answer to a trigger.
type Accepted struct {
	// ID names the run that serves the trigger.
	ID tasks.RunID
	// Coalesced is true if that run waited already.
	Coalesced bool
}

// Trigger enqueues a run now, unless one with the same unique key waits already. It returns the run that serves the trigger.
func (j *Jobs) Trigger(ctx context.Context, def tasks.Definition, payload tasks.Payload) (Accepted, error) {
	data, err := def.EncodePayload(payload)
	if err != nil {
		return Accepted{}, err
	}
	id := tasks.TriggerID(def.Name, time.Now())
	key, err := j.takeKey(ctx, def, payload.UniqueKey(), id, data, "")
	if err != nil {
		return Accepted{}, fmt.Errorf("enqueueing a run of %s: %w", def.Name, err)
	}
	if key.conflict != "" {
		waiting, err := tasks.ParseRunID(key.conflict)
		if err != nil {
			return Accepted{}, fmt.Errorf("the waiting run of %s: %w", def.Name, err)
		}
		return Accepted{ID: waiting, Coalesced: true}, nil
	}
	if _, err := j.enqueueRun(ctx, def, id, data); err != nil {
		return Accepted{}, err
	}
	return Accepted{ID: id}, nil
}

// keyAnswer is what takeKey found. The zero value is that the run has the key.
type keyAnswer struct {
	handled  bool   // the tick was handled before
	conflict string // the ID of the waiting run that has the key
}

func (j *Jobs) takeKey(ctx context.Context, def tasks.Definition, key string, id tasks.RunID, data []byte, tickTime string) (keyAnswer, error) {
	keys := []string{j.keys.unique(def.Name, key), j.keys.tick(def.Name)}
	loses := ""
	for range keyTries {
		reply, err := takeKeyScript.Run(ctx, j.rdb, keys, id.String(), data, millis(time.Now()), loses, tickTime).StringSlice()
		if err != nil {
			return keyAnswer{}, err
		}
		switch {
		case reply[0] == "handled":
			return keyAnswer{handled: true}, nil
		case reply[0] == "taken", reply[1] == id.String(): // or another scheduler took it for the run of the same tick
			return keyAnswer{}, nil
		}
		waits, err := j.waits(ctx, def, reply[1], []byte(reply[2]), reply[3])
		if err != nil {
			return keyAnswer{}, err
		}
		if waits {
			return keyAnswer{conflict: reply[1]}, nil
		}
		loses = reply[1]
	}
	return keyAnswer{}, fmt.Errorf("%d times in a row, the run that had the unique key began", keyTries)
}

// waits reports whether the run that has a unique key waits in the queue. It enqueues the run if the process that took the key
// has not done so yet.
func (j *Jobs) waits(ctx context.Context, def tasks.Definition, id string, payload []byte, taken string) (bool, error) {
	state, err := j.taskState(ctx, def.Queue(), id)
	if err != nil || state != "" {
		return state == asynq.TaskStatePending.String(), err
	}
	ms, _ := strconv.ParseInt(taken, 10, 64) // 0, which is long ago, if it is no time
	if time.Since(time.UnixMilli(ms)) > keyTimeout {
		return false, nil
	}
	run, err := tasks.ParseRunID(id)
	if err != nil {
		return false, nil //nolint:nilerr // no run of ours, so it loses the key
	}
	_, err = j.enqueueRun(ctx, def, run, payload)
	return true, err
}

// enqueueRun puts a run into the queue, with the trace of ctx. It returns false and no error if the run is there already.
func (j *Jobs) enqueueRun(ctx context.Context, def tasks.Definition, id tasks.RunID, payload []byte) (bool, error) {
	return j.enqueue(ctx, def.Queue(), id.String(), def.NewTask(id, payload, telemetry.TraceHeaders(ctx)))
}

// enqueue puts a task into its queue, makes asynq know the queue, and announces the task. It returns false and no error if a task with the ID is there already.
func (j *Jobs) enqueue(ctx context.Context, queue, id string, task *asynq.Task) (bool, error) {
	_, err := j.client.EnqueueContext(ctx, task)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueueing %s: %w", id, err)
	}
	j.announce(ctx, queue)
	return true, nil
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
