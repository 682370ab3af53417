// Putting runs into queues. Of the runs of a job type with the same unique key at most one waits.
//
// The unique key has an entry in Redis, which names a run. To enqueue a run, a process first takes the key for it. The
// worker frees the key when the run begins. So the run that a key names has not begun, or it was snoozed, and one of these is true:
//
//   - It waits in the queue, as pending. Then the new run has a conflict, and the one that waits serves its trigger or tick.
//   - A process is just enqueueing it. Then any process can do so too: the second task's ID is there already.
//   - The process that took the key died, or the run is snoozed. Then the new run gets the key.
//
// For the run of a tick the same script checks that the tick was not handled before. The start of the run records the tick as
// handled, too. So the run of a tick is enqueued once, whatever happens to its task meanwhile. See tick.go.

package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// keyTimeout is how old an entry of a unique key is before a run that is not in the queue loses it. It is well above the time
// that enqueueing can take.
const keyTimeout = 30 * time.Second

// KEYS: unique key, tick. ARGV: ID, payload, now (ms), tick time (ms) or "", what the keys of asynq's tasks begin with, keyTimeout
// (ms). Returns {"handled"}, {"taken"}, {"waits", ID} or, when the run that has the key is not in the queue yet, {"enqueue", ID,
// payload}.
//
// It asks asynq's task itself whether the run waits. Were that another command, the run could begin between the two, and so
// could the next one that has the key, again and again. The keys of the tasks have the hash tag of the others.
var takeKeyScript = redis.NewScript(`
if ARGV[4] ~= "" and tonumber(redis.call("GET", KEYS[2]) or "-1") >= tonumber(ARGV[4]) then
	return {"handled"}
end
local r = redis.call("HMGET", KEYS[1], "id", "payload", "time")
if r[1] == ARGV[1] then
	return {"taken"} -- by another scheduler, for the run of the same tick
elseif r[1] then
	local state = redis.call("HGET", ARGV[5] .. r[1], "state")
	if state == "pending" then
		return {"waits", r[1]}
	elseif not state and tonumber(ARGV[3]) - (tonumber(r[3]) or 0) <= tonumber(ARGV[6]) then
		return {"enqueue", r[1], r[2] or ""}
	end
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
	return j.TriggerBy(ctx, def, payload, Trigger{Kind: TriggeredByAPI})
}

// TriggerBy is Trigger, and records who has triggered the run.
func (j *Jobs) TriggerBy(ctx context.Context, def tasks.Definition, payload tasks.Payload, by Trigger) (Accepted, error) {
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
	if _, err := j.enqueueRun(ctx, def, id, data, by); err != nil {
		return Accepted{}, err
	}
	return Accepted{ID: id}, nil
}

// keyAnswer is what takeKey found. The zero value is that the run has the key.
type keyAnswer struct {
	handled  bool   // the tick was handled before
	conflict string // the ID of the waiting run that has the key
}

// takeKey takes a unique key for the run with the ID. If the process that took the key for another run has not enqueued that
// one yet, takeKey does so.
func (j *Jobs) takeKey(ctx context.Context, def tasks.Definition, key string, id tasks.RunID, data []byte, tickTime string) (keyAnswer, error) {
	reply, err := takeKeyScript.Run(ctx, j.rdb, []string{j.keys.unique(def.Name, key), j.keys.tick(def.Name)},
		id.String(), data, millis(time.Now()), tickTime, asynqKey(def.Queue(), "t:"), keyTimeout.Milliseconds()).StringSlice()
	if err != nil {
		return keyAnswer{}, err
	}
	switch reply[0] {
	case "handled":
		return keyAnswer{handled: true}, nil
	case "taken":
		return keyAnswer{}, nil
	case "waits":
		return keyAnswer{conflict: reply[1]}, nil
	}
	run, err := tasks.ParseRunID(reply[1])
	if err != nil {
		return keyAnswer{}, fmt.Errorf("the run that has the unique key: %w", err)
	}
	_, err = j.enqueueRun(ctx, def, run, []byte(reply[2]), Trigger{Kind: TriggeredByAPI}) // unless it is a tick's
	return keyAnswer{conflict: reply[1]}, err
}

// enqueueRun puts a run into the queue, with the trace of ctx, and who has triggered it. It returns false and no error if the run
// is there already.
func (j *Jobs) enqueueRun(ctx context.Context, def tasks.Definition, id tasks.RunID, payload []byte, by Trigger) (bool, error) {
	headers := make(map[string]string)
	maps.Copy(headers, telemetry.TraceHeaders(ctx))
	if !id.Scheduled() {
		encoded, _ := json.Marshal(by) // it has strings only
		headers[triggerHeader] = string(encoded)
	}
	return j.enqueue(ctx, def.Queue(), id.String(), def.NewTask(id, payload, headers))
}

// enqueue puts a task into its queue, makes asynq know the queue, and announces the task. It returns false and no error if a
// task with the ID is there already.
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
