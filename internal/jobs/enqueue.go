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

// At most one run of a kind waits. Which one is kept in the kind's waiting key: whoever wants to enqueue a run first
// claims that key for it, and the worker frees the key when the run begins. So a claim that is there belongs to a run
// that has not begun: it waits in the queue, or it is just being enqueued (then anybody may do that: the task's ID
// makes the second time a conflict), or its claimer died (then the claim is replaced).
//
// A tick's run is claimed in the same script that looks whether the tick was handled already, which the worker's start of
// the run records too: no run of a tick is enqueued twice, whatever happens to its task meanwhile. See tick.go.

const (
	// claimTimeout is after how long a claim whose task is not in the queue is given up: well above the time that
	// enqueueing may take.
	claimTimeout = 30 * time.Second
	// claimTries bounds how often a claim is tried again because the run that held it began in between.
	claimTries = 10
)

// KEYS: waiting, tick. ARGV: id, payload, now, id of the claim that may be replaced or "", tick time (ms) or "".
// Returns {"handled"}, {"claimed"} or {"waiting", id, payload, time}.
var claimScript = redis.NewScript(`
if ARGV[5] ~= "" and tonumber(redis.call("GET", KEYS[2]) or "-1") >= tonumber(ARGV[5]) then
	return {"handled"}
end
local id = redis.call("HGET", KEYS[1], "id")
if id and id ~= ARGV[4] then
	return {"waiting", id, redis.call("HGET", KEYS[1], "payload"), redis.call("HGET", KEYS[1], "time")}
end
redis.call("HSET", KEYS[1], "id", ARGV[1], "payload", ARGV[2], "time", ARGV[3])
return {"claimed"}
`)

// Accepted is the answer to a trigger.
type Accepted struct {
	// ID is that of the run that will serve the trigger.
	ID tasks.RunID
	// Coalesced is true when that run waited already.
	Coalesced bool
}

// Trigger enqueues a run now, or finds the one of its kind that waits already.
func (j *Jobs) Trigger(ctx context.Context, def tasks.Definition, payload tasks.Payload) (Accepted, error) {
	data, err := def.EncodePayload(payload)
	if err != nil {
		return Accepted{}, err
	}
	id := tasks.TriggerID(def.Name, time.Now())
	claimed, err := j.claim(ctx, def, payload.UniqueKey(), id, data, "")
	if err != nil {
		return Accepted{}, fmt.Errorf("enqueueing a run of %s: %w", def.Name, err)
	}
	if claimed.waiting != "" {
		other, err := tasks.ParseRunID(claimed.waiting)
		if err != nil {
			return Accepted{}, fmt.Errorf("the waiting run of %s: %w", def.Name, err)
		}
		return Accepted{ID: other, Coalesced: true}, nil
	}
	if _, err := j.enqueue(ctx, def, id, data); err != nil {
		return Accepted{}, err
	}
	return Accepted{ID: id}, nil
}

// claimed is the outcome of a claim: the tick was handled before, another run waits, or (neither) the claim is ours.
type claimed struct {
	handled bool
	waiting string
}

func (j *Jobs) claim(ctx context.Context, def tasks.Definition, kind string, id tasks.RunID, data []byte, tickTime string) (claimed, error) {
	keys := []string{waitingKey(def.Name, kind), tickKey(def.Name)}
	replace := ""
	for range claimTries {
		reply, err := claimScript.Run(ctx, j.rdb, keys, id.String(), data, millis(time.Now()), replace, tickTime).StringSlice()
		if err != nil {
			return claimed{}, err
		}
		switch {
		case reply[0] == "handled":
			return claimed{handled: true}, nil
		case reply[0] == "claimed", reply[1] == id.String(): // ours, or another scheduler's claim for the same tick
			return claimed{}, nil
		}
		waits, err := j.waits(ctx, def, reply[1], []byte(reply[2]), reply[3])
		if err != nil {
			return claimed{}, err
		}
		if waits {
			return claimed{waiting: reply[1]}, nil
		}
		replace = reply[1]
	}
	return claimed{}, fmt.Errorf("runs began %d times in a row while claiming the next", claimTries)
}

// waits reports whether the run of a claim waits in the queue, and puts it there if its claimer has not done so yet.
func (j *Jobs) waits(ctx context.Context, def tasks.Definition, id string, payload []byte, claimedAt string) (bool, error) {
	info, err := j.inspector.GetTaskInfo(def.Name, id)
	if err == nil {
		return info.State == asynq.TaskStatePending, nil
	}
	if !notFound(err) {
		return false, fmt.Errorf("looking up %s: %w", id, err)
	}
	ms, _ := strconv.ParseInt(claimedAt, 10, 64) // a claim without a valid time is given up
	if time.Since(time.UnixMilli(ms)) > claimTimeout {
		return false, nil
	}
	run, err := tasks.ParseRunID(id)
	if err != nil {
		return false, nil //nolint:nilerr // not a claim of ours: given up
	}
	_, err = j.enqueue(ctx, def, run, payload)
	return true, err
}

// enqueue puts a run into the queue, with the trace of ctx; false and no error is that it was there already.
func (j *Jobs) enqueue(ctx context.Context, def tasks.Definition, id tasks.RunID, payload []byte) (bool, error) {
	_, err := j.client.EnqueueContext(ctx, def.NewTask(id, payload, telemetry.TraceHeaders(ctx)))
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueueing %s: %w", id, err)
	}
	j.announce(ctx, def.Name)
	return true, nil
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
