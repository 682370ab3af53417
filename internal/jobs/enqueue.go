// Putting runs into queues. Of the runs of a job type with the same unique key at most one waits, unless its definition says that
// each is a run of its own.
//
// The unique key has an entry in Redis, which names a run. To enqueue a run, a process first takes the key for it. The
// worker frees the key when the run begins. So the run that a key names has not begun, or it was snoozed, and one of these is true:
//
//   - It waits in the queue, as pending. Then the new run has a conflict, and the one that waits serves its trigger or tick.
//   - It was delayed, and is due. Then it waits, too, even if no worker has moved it to the pending ones yet.
//   - A process is just enqueueing it. Then any process can do so too: the second task's ID is there already.
//   - The process that took the key died, or the run is snoozed. Then the new run gets the key.
//
// For the run of a tick the same script checks that the tick was not handled before. The start of the run records the tick as
// handled, too. So the run of a tick is enqueued once, whatever happens to its task meanwhile. See tick.go.
//
// A job type with tasks.UniqueFor has a second entry for each key, the window: the run that a trigger had last, for the given
// time. It is written together with the first one, so a process can die between that and the enqueueing here as well, and the
// next trigger enqueues the run that the window names. A run can end, and be trimmed, before its window does: therefore its
// start is marked in the window.
//
// A delayed run is enqueued without a key, as scheduled. See delay.go.

package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// keyTimeout is how old an entry of a unique key is before a run that is not in the queue loses it. It is well above the time
// that enqueueing can take.
const keyTimeout = 30 * time.Second

// KEYS: unique key, tick, due, window. ARGV: ID, payload, now (ms), tick time (ms) or "", what the keys of asynq's tasks begin
// with, keyTimeout (ms), what the keys of the runs' states begin with, length of the window (ms) or "" if it does not matter.
// Returns {"handled"}, {"taken"}, {"waits", ID} or, when the run that has the key is not in the queue yet, {"enqueue", ID,
// payload}.
//
// It asks asynq's task itself whether the run waits. Were that another command, the run could begin between the two, and so
// could the next one that has the key, again and again. The keys of the tasks have the hash tag of the others.
var takeKeyScript = redis.NewScript(`
if ARGV[4] ~= "" and tonumber(redis.call("GET", KEYS[2]) or "-1") >= tonumber(ARGV[4]) then
	return {"handled"}
end
local due = redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", ARGV[3])
for i = #due, 1, -1 do -- the last of the delayed runs that are due, and have not begun, takes the key by force
	local state = redis.call("HGET", ARGV[5] .. due[i], "state")
	if (state == "scheduled" or state == "pending") and redis.call("EXISTS", ARGV[7] .. due[i]) == 0 then
		redis.call("HSET", KEYS[1], "id", due[i], "payload", "", "time", 0)
		break
	end
end
if #due > 0 then
	redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", ARGV[3])
end
local function young(time)
	return tonumber(ARGV[3]) - (tonumber(time) or 0) <= tonumber(ARGV[6])
end
if ARGV[8] ~= "" then
	local w = redis.call("HMGET", KEYS[4], "id", "payload", "time", "begun")
	if w[1] and (w[4] or redis.call("EXISTS", ARGV[5] .. w[1]) == 1) then
		return {"waits", w[1]}
	elseif w[1] and young(w[3]) then
		return {"enqueue", w[1], w[2] or ""}
	end
end
local r = redis.call("HMGET", KEYS[1], "id", "payload", "time")
if r[1] == ARGV[1] then
	return {"taken"} -- by another scheduler, for the run of the same tick
elseif r[1] then
	local state = redis.call("HGET", ARGV[5] .. r[1], "state")
	if state == "pending" or state == "scheduled" then
		return {"waits", r[1]}
	elseif not state and young(r[3]) then
		return {"enqueue", r[1], r[2] or ""}
	end
end
redis.call("HSET", KEYS[1], "id", ARGV[1], "payload", ARGV[2], "time", ARGV[3])
if ARGV[8] ~= "" then
	redis.call("DEL", KEYS[4])
	redis.call("HSET", KEYS[4], "id", ARGV[1], "payload", ARGV[2], "time", ARGV[3])
	redis.call("PEXPIRE", KEYS[4], ARGV[8])
end
return {"taken"}
`)

// Accepted is the answer to a trigger.
type Accepted struct {
	// ID names the run that serves the trigger.
	ID tasks.RunID
	// Coalesced is true if that run was there already.
	Coalesced bool
	// RunAt is when a delayed run is due. It is zero for any other run.
	RunAt time.Time
}

// Trigger enqueues a run now, unless one with the same unique key serves the trigger, as the definition's Unique says. It
// returns the run that serves the trigger.
func (j *Jobs) Trigger(ctx context.Context, def tasks.Definition, payload tasks.Payload) (Accepted, error) {
	return j.TriggerBy(ctx, def, payload, Trigger{Kind: TriggeredByAPI})
}

// TriggerBy is Trigger, and records who has triggered the run.
func (j *Jobs) TriggerBy(ctx context.Context, def tasks.Definition, payload tasks.Payload, by Trigger) (Accepted, error) {
	return j.TriggerAt(ctx, def, payload, time.Time{}, by)
}

// TriggerAt is TriggerBy for a run that is to start at a time, and not before. A time that has passed means now, as the zero time
// does. Otherwise the trigger always has a run of its own.
func (j *Jobs) TriggerAt(
	ctx context.Context, def tasks.Definition, payload tasks.Payload, at time.Time, by Trigger,
) (Accepted, error) {
	data, err := def.EncodePayload(payload)
	if err != nil {
		return Accepted{}, err
	}
	now := time.Now()
	switch {
	case at.After(now):
		return j.delay(ctx, def, payload.UniqueKey(), data, at, by)
	case def.Unique.Mode == tasks.UniqueNever:
		id, err := j.enqueueOwn(ctx, def, now, data, by)
		return Accepted{ID: id}, err
	}
	id := tasks.TriggerID(def.Name, now)
	key, err := j.takeKey(ctx, def, payload.UniqueKey(), id, data, time.Time{})
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
	conflict string // the ID of the run that has the key
}

// takeKey takes a unique key for the run with the ID. Of the run of a tick the caller gives the tick time. If the process that
// took the key for another run has not enqueued that one yet, takeKey does so.
func (j *Jobs) takeKey(
	ctx context.Context, def tasks.Definition, key string, id tasks.RunID, data []byte, tickTime time.Time,
) (keyAnswer, error) {
	var tick, window string
	switch {
	case !tickTime.IsZero():
		tick = millis(tickTime)
	case def.Unique.Mode == tasks.UniqueFor:
		window = strconv.FormatInt(max(1, def.Unique.For.Milliseconds()), 10)
	}
	keys := []string{
		j.keys.unique(def.Name, key), j.keys.tick(def.Name), j.keys.due(def.Name, key), j.keys.window(def.Name, key),
	}
	reply, err := takeKeyScript.Run(ctx, j.rdb, keys, id.String(), data, millis(time.Now()), tick, asynqKey(def.Queue(), "t:"),
		keyTimeout.Milliseconds(), j.keys.runs(def.Name), window).StringSlice()
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
	return j.enqueue(ctx, def.Queue(), id.String(), def.NewTask(id, payload, headers(ctx, id, by)))
}

// headers returns the headers of the task of a run.
func headers(ctx context.Context, id tasks.RunID, by Trigger) map[string]string {
	headers := make(map[string]string)
	maps.Copy(headers, telemetry.TraceHeaders(ctx))
	if !id.Scheduled() {
		encoded, _ := json.Marshal(by) // it has strings only
		headers[triggerHeader] = string(encoded)
	}
	return headers
}

const (
	// acceptHeader is the header of a task that is enqueued without a unique key. It tells the acceptance of one trigger from that
	// of all others.
	acceptHeader = "codex-accepted"
	// ownTries is how many IDs enqueueOwn tries. Two runs of the same millisecond have the same ID by a chance of one in 10^12.
	ownTries = 5
)

// enqueueOwn puts a triggered run into the queue that needs no unique key. The run's reference time is at, and the options are of
// asynq's.
//
// No other process enqueues a run without a unique key. So if its ID is there already, it is another run's by chance:
// thousands can be delayed until the same millisecond. Or it is its own, because the connection broke before the answer, and
// the client tried again.
func (j *Jobs) enqueueOwn(
	ctx context.Context, def tasks.Definition, at time.Time, payload []byte, by Trigger, options ...asynq.Option,
) (tasks.RunID, error) {
	acceptance := rand.Text()
	for range ownTries {
		id := tasks.TriggerID(def.Name, at)
		h := headers(ctx, id, by)
		h[acceptHeader] = acceptance
		enqueued, err := j.enqueue(ctx, def.Queue(), id.String(), def.NewTask(id, payload, h), options...)
		if err != nil || enqueued {
			return id, err
		}
		if info, err := j.inspector.GetTaskInfo(def.Queue(), id.String()); err == nil && info.Headers[acceptHeader] == acceptance {
			return id, nil
		}
	}
	return tasks.RunID{}, fmt.Errorf("enqueueing a run of %s: the IDs of %d runs are there already", def.Name, ownTries)
}

// enqueue puts a task into its queue, makes asynq know the queue, and announces the task. It returns false and no error if a
// task with the ID is there already.
func (j *Jobs) enqueue(ctx context.Context, queue, id string, task *asynq.Task, options ...asynq.Option) (bool, error) {
	_, err := j.client.EnqueueContext(ctx, task, options...)
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
