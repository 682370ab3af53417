package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// A run that is split has a hash of its ranges, which ends with it. What all of them have in common is in these fields:
//
//	n         how many there are
//	complete  1 when no more follow
//	ended     how many have ended
//	progress  the sum of their progress in percent
//
// and what concerns one is in fields with its index before them, such as "3:spec":
//
//	spec        what the range is, as the attempt that split the run gave it
//	owner       the attempt that works on it, "" for none; only that one can change it
//	recoveries  how often its worker has died
//	failures    how many attempts have failed
//	checkpoint  where it got to; when it has ended, what has been done
//	progress    in percent
//	end         "done" or "failed", once it has ended
//	reason      why it failed
//
// A range is recorded before its task is enqueued, and the task's ID is derived from the run's: so an attempt that is in doubt
// enqueues it once more, and nothing is done twice.

// ErrNoRange is returned for a range that has ended, or whose run has. It is an ErrFenced.
var ErrNoRange = fmt.Errorf("there is nothing left to do in this range: %w", ErrFenced)

// KEYS: run, ranges. ARGV: the run's owner, TTL in seconds, index, spec, "1" for the last one. Returns 0 when the run's
// owner is another one, 2 when the range is not the next one.
var addRangeScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
local n = tonumber(redis.call("HGET", KEYS[2], "n") or "0")
local index = tonumber(ARGV[3])
if index < n and redis.call("HGET", KEYS[2], ARGV[3] .. ":spec") == ARGV[4] then
	return 1 -- asked again, because the answer was lost
elseif index ~= n then
	return 2
end
redis.call("HSET", KEYS[2], ARGV[3] .. ":spec", ARGV[4], "n", n + 1, "complete", ARGV[5])
redis.call("EXPIRE", KEYS[2], ARGV[2])
return 1
`)

// KEYS: run, ranges. ARGV: the run's owner. Returns 0 when it is another one.
var discardScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("UNLINK", KEYS[2])
return 1
`)

// KEYS: ranges. Returns {n, complete, ended, progress, spec of the last one}.
var splitScript = redis.NewScript(`
local r = redis.call("HMGET", KEYS[1], "n", "complete", "ended", "progress")
local n = tonumber(r[1] or "0")
local spec = n > 0 and redis.call("HGET", KEYS[1], (n - 1) .. ":spec") or ""
return {tostring(n), r[2] or "0", r[3] or "0", r[4] or "0", spec}
`)

// KEYS: run, ranges. ARGV: index, owner, TTL in seconds. Returns {} when there is nothing to do, otherwise {former owner,
// recoveries, the run's start, checkpoint, failures, spec}.
var openRangeScript = redis.NewScript(`
local i = ARGV[1]
local spec = redis.call("HGET", KEYS[2], i .. ":spec")
if not spec or redis.call("HEXISTS", KEYS[2], i .. ":end") == 1 or redis.call("HEXISTS", KEYS[1], "cancelled") == 1 then
	return {}
end
local owner = redis.call("HGET", KEYS[2], i .. ":owner") or ""
if owner == ARGV[2] then
	owner = "" -- asked again, because the answer was lost
elseif owner ~= "" then
	redis.call("HINCRBY", KEYS[2], i .. ":recoveries", 1)
end
redis.call("HSET", KEYS[2], i .. ":owner", ARGV[2])
redis.call("EXPIRE", KEYS[2], ARGV[3])
local r = redis.call("HMGET", KEYS[2], i .. ":recoveries", i .. ":checkpoint", i .. ":failures")
return {owner, r[1] or "0", redis.call("HGET", KEYS[1], "started") or "0", r[2] or "", r[3] or "0", spec}
`)

// Of this script and the next three: KEYS: ranges, run. ARGV: index, owner, ... Returns 0 when the owner is another one, -1
// when there is nothing left to do in the range.
//
// ARGV: ... TTL in seconds, progress, checkpoint. What comes late, when the range has ended, changes nothing.
var saveRangeScript = redis.NewScript(`
local i = ARGV[1]
if redis.call("HGET", KEYS[1], i .. ":owner") ~= ARGV[2] then
	return redis.call("HEXISTS", KEYS[1], i .. ":spec") - 1
end
if redis.call("HEXISTS", KEYS[1], i .. ":end") == 1 or redis.call("HEXISTS", KEYS[2], "cancelled") == 1 then
	return -1
end
local before = tonumber(redis.call("HGET", KEYS[1], i .. ":progress") or "0")
redis.call("HINCRBY", KEYS[1], "progress", tonumber(ARGV[4]) - before)
redis.call("HSET", KEYS[1], i .. ":progress", ARGV[4], i .. ":checkpoint", ARGV[5])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return 1
`)

var failRangeScript = redis.NewScript(`
local i = ARGV[1]
if redis.call("HGET", KEYS[1], i .. ":owner") ~= ARGV[2] then
	return redis.call("HEXISTS", KEYS[1], i .. ":spec") - 1
end
redis.call("HINCRBY", KEYS[1], i .. ":failures", 1)
redis.call("HSET", KEYS[1], i .. ":owner", "")
return 1
`)

var releaseRangeScript = redis.NewScript(`
local i = ARGV[1]
if redis.call("HGET", KEYS[1], i .. ":owner") ~= ARGV[2] then
	return redis.call("HEXISTS", KEYS[1], i .. ":spec") - 1
end
redis.call("HSET", KEYS[1], i .. ":owner", "")
return 1
`)

// ARGV: ... TTL in seconds, "done" or "failed", checkpoint or "" to leave it, reason.
var endRangeScript = redis.NewScript(`
local i = ARGV[1]
if redis.call("HGET", KEYS[1], i .. ":owner") ~= ARGV[2] then
	return redis.call("HEXISTS", KEYS[1], i .. ":spec") - 1
end
if redis.call("HEXISTS", KEYS[1], i .. ":end") == 1 then
	return 1 -- asked again, because the answer was lost
end
local before = tonumber(redis.call("HGET", KEYS[1], i .. ":progress") or "0")
redis.call("HINCRBY", KEYS[1], "progress", 100 - before)
redis.call("HINCRBY", KEYS[1], "ended", 1)
redis.call("HSET", KEYS[1], i .. ":progress", 100, i .. ":end", ARGV[4], i .. ":reason", ARGV[6])
if ARGV[5] ~= "" then
	redis.call("HSET", KEYS[1], i .. ":checkpoint", ARGV[5])
end
redis.call("EXPIRE", KEYS[1], ARGV[3])
return 1
`)

// Split says how far a run is split into ranges, and how far these are.
type Split struct {
	// Ranges is how many there are, and Complete says that no more follow.
	Ranges   int
	Complete bool
	// Last is what the last of them is, as given to AddRange.
	Last []byte
	// Ended is how many have ended.
	Ended int
	// Progress is in percent of the ranges that there are.
	Progress int
}

// Split returns how far the run is split, at a cost that does not depend on the number of its ranges.
func (s *RunState) Split(ctx context.Context) (Split, error) {
	reply, err := splitScript.Run(ctx, s.rdb, []string{s.rangesKey()}).StringSlice()
	if err != nil {
		return Split{}, fmt.Errorf("reading the ranges of run %s: %w", s.id, err)
	}
	// Numbers that we wrote.
	n, _ := strconv.Atoi(reply[0])
	ended, _ := strconv.Atoi(reply[2])
	progress, _ := strconv.Atoi(reply[3])
	return Split{
		Ranges: n, Complete: reply[1] == "1", Last: []byte(reply[4]), Ended: ended, Progress: progress / max(n, 1),
	}, nil
}

// AddRange records a range of the run, to be enqueued after that. It returns ErrFenced when it is not the next one,
// nor recorded already with the same spec: then the ranges are not those that the caller knows.
func (s *RunState) AddRange(ctx context.Context, index int, spec []byte, last bool) error {
	complete := 0
	if last {
		complete = 1
	}
	n, err := addRangeScript.Run(ctx, s.rdb, []string{s.key(), s.rangesKey()}, s.owner, runSeconds, index, spec, complete).Int()
	switch {
	case err != nil:
		return fmt.Errorf("recording range %d of run %s: %w", index, s.id, err)
	case n == 0:
		return ErrFenced
	case n == 2:
		return fmt.Errorf("recording range %d of run %s, which is not the next one: %w", index, s.id, ErrFenced)
	}
	return nil
}

// DiscardRanges forgets all ranges of the run.
func (s *RunState) DiscardRanges(ctx context.Context) error {
	return s.compare(ctx, discardScript, []string{s.key(), s.rangesKey()}, s.owner)
}

// RangeEnd is what is known of one range.
type RangeEnd struct {
	// Checkpoint is where it got to; when it has ended, what has been done.
	Checkpoint []byte
	Ended      bool
	// Failure is the reason for which the range failed; "" when it did not.
	Failure string
}

// rangesPage is how many ranges are read in one command. Redis answers nobody else meanwhile, and a run may have any number.
const rangesPage = 1000

// Ranges returns what is known of the ranges of the run from an index on, as many as are read at a time; none when there
// are no more.
func (s *RunState) Ranges(ctx context.Context, from int) ([]RangeEnd, error) {
	fields := []string{"n"}
	for i := from; i < from+rangesPage; i++ {
		for _, name := range []string{"end", "checkpoint", "reason"} {
			fields = append(fields, strconv.Itoa(i)+":"+name)
		}
	}
	values, err := s.rdb.HMGet(ctx, s.rangesKey(), fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the ranges of run %s from %d on: %w", s.id, from, err)
	}
	text := func(i int) string {
		value, _ := values[i].(string) // nil for a field that is not there
		return value
	}
	n, _ := strconv.Atoi(text(0)) // a number that we wrote
	ranges := make([]RangeEnd, max(0, min(n-from, rangesPage)))
	for i := range ranges {
		end, checkpoint, reason := text(3*i+1), text(3*i+2), text(3*i+3)
		ranges[i] = RangeEnd{Checkpoint: []byte(checkpoint), Ended: end != ""}
		if end == rangeFailed {
			ranges[i].Failure = reason
		}
	}
	return ranges, nil
}

const (
	rangeDone   = "done"
	rangeFailed = "failed"
)

// EnqueueRange enqueues a range that is recorded, with its run's payload; one that is in the queue, or being worked on,
// stays as it is.
func (j *Jobs) EnqueueRange(ctx context.Context, def tasks.Definition, id tasks.RangeID, payload []byte) error {
	_, err := j.client.EnqueueContext(ctx, def.NewRangeTask(id, payload, telemetry.TraceHeaders(ctx)))
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueueing range %s: %w", id, err)
	}
	j.announce(ctx, def.RangeQueue())
	return nil
}

// RangeState is what Redis keeps of one range of a run from one attempt to the next, and which attempt owns it. Only the one
// that opened it last can change it; the methods return ErrFenced to any other, and ErrNoRange when the range, or its run,
// has ended. Started is when the first attempt at its run began.
type RangeState struct {
	Opened
	// Spec is what the range is, as given to AddRange.
	Spec []byte

	rdb   redis.UniversalClient
	id    tasks.RangeID
	owner string
}

// OpenRange makes the caller the owner of the range. Doing it twice as the same owner is doing it once. It returns
// ErrNoRange when the range has ended, or its run has.
func (j *Jobs) OpenRange(ctx context.Context, id tasks.RangeID, owner string) (*RangeState, error) {
	s := &RangeState{rdb: j.rdb, id: id, owner: owner}
	reply, err := openRangeScript.Run(ctx, j.rdb, []string{s.runKey(), s.key()}, id.Index, owner, runSeconds).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("opening range %s: %w", id, err)
	}
	if len(reply) == 0 {
		return nil, ErrNoRange
	}
	s.Opened = opened(reply)
	s.Spec = []byte(reply[5])
	return s, nil
}

// Save keeps the checkpoint and the progress in percent.
func (s *RangeState) Save(ctx context.Context, checkpoint []byte, progress int) error {
	return s.compareAndDo(ctx, saveRangeScript, runSeconds, progress, checkpoint)
}

// Release keeps the state for the next attempt and gives up owning it.
func (s *RangeState) Release(ctx context.Context) error {
	return s.compareAndDo(ctx, releaseRangeScript)
}

// FailAttempt counts a failed attempt, keeps the state for the next one and gives up owning it.
func (s *RangeState) FailAttempt(ctx context.Context) error {
	return s.compareAndDo(ctx, failRangeScript)
}

// Complete ends the range with the checkpoint of its end.
func (s *RangeState) Complete(ctx context.Context, checkpoint []byte) error {
	return s.compareAndDo(ctx, endRangeScript, runSeconds, rangeDone, checkpoint, "")
}

// Fail ends the range with a reason.
func (s *RangeState) Fail(ctx context.Context, reason error) error {
	return s.compareAndDo(ctx, endRangeScript, runSeconds, rangeFailed, "", reason.Error())
}

func (s *RangeState) compareAndDo(ctx context.Context, script *redis.Script, args ...any) error {
	n, err := script.Run(ctx, s.rdb, []string{s.key(), s.runKey()}, append([]any{s.id.Index, s.owner}, args...)...).Int()
	if err != nil {
		return fmt.Errorf("updating range %s: %w", s.id, err)
	}
	switch n {
	case -1:
		return ErrNoRange
	case 0:
		return ErrFenced
	}
	return nil
}

func (s *RangeState) runKey() string { return runKey(s.id.Run.Job, s.id.Run.String()) }

func (s *RangeState) key() string { return rangesKey(s.id.Run.Job, s.id.Run.String()) }
