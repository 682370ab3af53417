// The ranges of a split run. A run that is split has a hash of its ranges, which ends with the run. These fields are about all
// of them:
//
//	n         how many there are
//	complete  1 if no more follow
//	ended     how many have ended
//	progress  the sum of their progress in percent
//	counts    the sum of what was done in them, as JSON
//	listed    how many failed records the ranges that have ended list
//
// The fields of one range begin with its index, such as "3:spec":
//
//	spec        what the range is, as the attempt that split the run gave it
//	owner       the token of the attempt that works on it, with its worker, "" for none
//	recoveries  how many times it was rescued
//	failures    how many attempts have failed
//	checkpoint  where it got to; when it has ended, what was done
//	progress    in percent
//	waiting     when it was first snoozed because its upstream is away (ms); gone with the next progress
//	until       when its next attempt is due, if it was snoozed last (ms)
//	end         "done" or "failed", once it has ended
//	reason      why it failed
//	began       when its first attempt began (ms)
//	closed      when it ended (ms)
//	worker      the ID of the worker that ended it
//	counts      what was done in it, as JSON
//	failed      the first records that failed in it, once it has ended, as JSON
//
// A range is recorded before its task is enqueued, and the task's ID is made of the run's ID. So an attempt that is in doubt
// enqueues the range once more, and nothing is done twice.

package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// ErrNoRange is the error for a range that has ended, or whose run has ended. It is an ErrFenced.
var ErrNoRange = fmt.Errorf("there is nothing left to do in this range: %w", ErrFenced)

// rangeFence begins each script that changes a range: the script returns 0 unless the attempt owns the range, and -1 if the
// range is not there. The ranges are KEYS[1], the index is ARGV[1] and the attempt's token ARGV[2].
const rangeFence = `
local i = ARGV[1]
if redis.call("HGET", KEYS[1], i .. ":owner") ~= ARGV[2] then
	return redis.call("HEXISTS", KEYS[1], i .. ":spec") - 1
end
`

// KEYS: run, ranges. ARGV: the run's owner, TTL, index, spec, "1" if it is the last one. Returns 2 if the range is not the next
// one.
var addRangeScript = redis.NewScript(fence + `
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

// KEYS: run, ranges. ARGV: the run's owner.
var discardScript = redis.NewScript(fence + `
redis.call("UNLINK", KEYS[2])
return 1
`)

// KEYS: ranges. Returns {n, complete, ended, progress, spec of the last range}.
var splitScript = redis.NewScript(`
local r = redis.call("HMGET", KEYS[1], "n", "complete", "ended", "progress")
local n = tonumber(r[1] or "0")
local spec = n > 0 and redis.call("HGET", KEYS[1], (n - 1) .. ":spec") or ""
return {tostring(n), r[2] or "0", r[3] or "0", r[4] or "0", spec}
`)

// KEYS: run, ranges, asynq's task of the run. ARGV: index, owner, TTL, now (ms). Returns {} if there is nothing left to do, otherwise {former
// owner, rescues, the run's start, checkpoint, failures, spec, time (ms) that the run was snoozed, the run's retries by hand}.
var openRangeScript = redis.NewScript(recordRescue + `
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
	recordRescue(KEYS[3], owner, ARGV[2], ARGV[4], i)
end
redis.call("HSET", KEYS[2], i .. ":owner", ARGV[2])
redis.call("HDEL", KEYS[2], i .. ":until")
redis.call("HSETNX", KEYS[2], i .. ":began", ARGV[4])
redis.call("EXPIRE", KEYS[2], ARGV[3])
local r = redis.call("HMGET", KEYS[2], i .. ":recoveries", i .. ":checkpoint", i .. ":failures")
local run = redis.call("HMGET", KEYS[1], "started", "waited")
return {owner, r[1] or "0", run[1] or "0", r[2] or "", r[3] or "0", spec, run[2] or "0",
	redis.call("HGET", KEYS[3], "codex:retries") or "0"}
`)

// sumCounts is a part of scripts that begin with rangeFence. Its function sum(counts, ended) returns the counts of all ranges together,
// as JSON, with new counts for this range. A list of jobs then reads one sum, and not each range. A completed range has a total of
// the records that it visited. A failed range keeps its total.
const sumCounts = `
local function sum(counts, ended)
	local r = redis.call("HMGET", KEYS[1], "counts", i .. ":counts")
	local all, before, now = cjson.decode(r[1] or "{}"), cjson.decode(r[2] or "{}"), cjson.decode(counts)
	if ended == "done" then
		now.total = now.processed
	elseif ended then
		now.total = before.total
	end
	before.totals, now.totals = before.total and 1, now.total and 1
	for _, name in ipairs({"processed", "updated", "failed", "total", "totals"}) do
		all[name] = (all[name] or 0) + (now[name] or 0) - (before[name] or 0)
	end
	return cjson.encode(all)
end
`

// KEYS: ranges, run. ARGV: index, owner, TTL, progress, checkpoint, counts or "". Returns -1 if there is nothing left to do.
var saveRangeScript = redis.NewScript(rangeFence + sumCounts + `
if redis.call("HEXISTS", KEYS[1], i .. ":end") == 1 or redis.call("HEXISTS", KEYS[2], "cancelled") == 1 then
	return -1
end
local before = tonumber(redis.call("HGET", KEYS[1], i .. ":progress") or "0")
redis.call("HINCRBY", KEYS[1], "progress", tonumber(ARGV[4]) - before)
if ARGV[6] ~= "" then
	redis.call("HSET", KEYS[1], i .. ":progress", ARGV[4], i .. ":checkpoint", ARGV[5], "counts", sum(ARGV[6]), i .. ":counts", ARGV[6])
else
	redis.call("HSET", KEYS[1], i .. ":progress", ARGV[4], i .. ":checkpoint", ARGV[5])
end
redis.call("HDEL", KEYS[1], i .. ":waiting")
redis.call("EXPIRE", KEYS[1], ARGV[3])
return 1
`)

// KEYS: ranges. ARGV: index, owner.
var failRangeScript = redis.NewScript(rangeFence + `
redis.call("HINCRBY", KEYS[1], i .. ":failures", 1)
redis.call("HSET", KEYS[1], i .. ":owner", "")
return 1
`)

// KEYS: ranges. ARGV: index, owner.
var releaseRangeScript = redis.NewScript(rangeFence + `
redis.call("HSET", KEYS[1], i .. ":owner", "")
return 1
`)

// KEYS: ranges. ARGV: index, owner, now, when the next attempt is due (ms). Returns when the range was first snoozed without any
// progress since.
var waitRangeScript = redis.NewScript(rangeFence + `
redis.call("HSETNX", KEYS[1], i .. ":waiting", ARGV[3])
redis.call("HSET", KEYS[1], i .. ":until", ARGV[4])
return tonumber(redis.call("HGET", KEYS[1], i .. ":waiting"))
`)

// KEYS: ranges. ARGV: index, owner, TTL, "done" or "failed", checkpoint or "" to leave it, reason, now (ms), worker, counts or "",
// failed records or "", their number, up to how many of all ranges are kept, and the channel that announces the end of all ranges.
var endRangeScript = redis.NewScript(rangeFence + sumCounts + `
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
redis.call("HSET", KEYS[1], i .. ":closed", ARGV[7], i .. ":worker", ARGV[8])
if ARGV[9] ~= "" then
	redis.call("HSET", KEYS[1], "counts", sum(ARGV[9], ARGV[4]), i .. ":counts", ARGV[9])
end
if ARGV[10] ~= "" and tonumber(redis.call("HGET", KEYS[1], "listed") or "0") < tonumber(ARGV[12]) then
	redis.call("HINCRBY", KEYS[1], "listed", ARGV[11])
	redis.call("HSET", KEYS[1], i .. ":failed", ARGV[10])
end
redis.call("EXPIRE", KEYS[1], ARGV[3])
local all = redis.call("HMGET", KEYS[1], "complete", "n", "ended")
if all[1] == "1" and all[2] == all[3] then
	redis.call("PUBLISH", ARGV[13], KEYS[1])
end
return 1
`)

// Split says how far a run is split into ranges, and how far its ranges are.
type Split struct {
	// Ranges is the number of ranges so far.
	Ranges int
	// Complete is true if no more ranges follow.
	Complete bool
	// Last is the spec of the last range, as given to AddRange.
	Last []byte
	// Ended is how many ranges have ended.
	Ended int
	// Progress is the progress of all ranges so far together, in percent.
	Progress int
}

// Split returns how far the run is split. The cost does not depend on the number of ranges.
func (s *RunState) Split(ctx context.Context) (Split, error) {
	reply, err := splitScript.Run(ctx, s.rdb, []string{s.ranges}).StringSlice()
	if err != nil {
		return Split{}, fmt.Errorf("reading the ranges of run %s: %w", s.id, err)
	}
	// These numbers are ours, so they parse.
	n, _ := strconv.Atoi(reply[0])
	ended, _ := strconv.Atoi(reply[2])
	progress, _ := strconv.Atoi(reply[3])
	return Split{
		Ranges: n, Complete: reply[1] == "1", Last: []byte(reply[4]), Ended: ended, Progress: progress / max(n, 1),
	}, nil
}

// AddRange records a range of the run, which must happen before EnqueueRange. Recording it again with the same spec is no
// error. If the range is not the next one, another attempt has split the run: AddRange then returns ErrFenced, too.
func (s *RunState) AddRange(ctx context.Context, index int, spec []byte, last bool) error {
	complete := 0
	if last {
		complete = 1
	}
	n, err := addRangeScript.Run(ctx, s.rdb, []string{s.run, s.ranges}, s.owner, runSeconds, index, spec, complete).Int()
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

// RangesEnded returns what is announced when all ranges of the run have ended, see Announcements.
func (s *RunState) RangesEnded() (announcement string) { return s.ranges }

// DiscardRanges removes all ranges of the run.
func (s *RunState) DiscardRanges(ctx context.Context) error {
	return s.changeKeys(ctx, discardScript, []string{s.run, s.ranges}, s.owner)
}

// RangeInfo says how far one range is.
type RangeInfo struct {
	// Checkpoint is where the range got to. When it has ended, its checkpoint counts all that was done.
	Checkpoint []byte
	// Ended is true if the range has ended, with or without success.
	Ended bool
	// Failure is why the range failed. It is "" if it did not.
	Failure string
	// Until is when the next attempt is due at a range that was snoozed because its upstream is away. It is zero for others.
	Until time.Time
}

// rangesPage is how many ranges one command reads. Redis serves no other client meanwhile, and a run can have any number.
const rangesPage = 1000

// Ranges returns how far the ranges of the run are, from the given index on, up to a thousand at a time. It returns none if
// there are no more.
func (s *RunState) Ranges(ctx context.Context, from int) ([]RangeInfo, error) {
	values, err := s.page(ctx, from, "end", "checkpoint", "reason", "until")
	if err != nil {
		return nil, err
	}
	ranges := make([]RangeInfo, len(values))
	for i, of := range values {
		end, checkpoint, reason, until := of[0], of[1], of[2], of[3]
		ranges[i] = RangeInfo{Checkpoint: []byte(checkpoint), Ended: end != ""}
		if until != "" {
			ranges[i].Until = time.UnixMilli(milliseconds(until).Milliseconds())
		}
		if end == rangeFailed {
			ranges[i].Failure = reason
		}
	}
	return ranges, nil
}

// page returns fields of each range, from the given index on, up to a thousand ranges. A field that is not there is "".
func (s *RunState) page(ctx context.Context, from int, names ...string) (values [][]string, err error) {
	n, err := s.rdb.HGet(ctx, s.ranges, "n").Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("counting the ranges of run %s: %w", s.id, err)
	}
	var fields []string
	for i := from; i < min(n, from+rangesPage); i++ {
		for _, name := range names {
			fields = append(fields, strconv.Itoa(i)+":"+name)
		}
	}
	if len(fields) == 0 {
		return nil, nil
	}
	found, err := s.rdb.HMGet(ctx, s.ranges, fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the ranges of run %s from %d on: %w", s.id, from, err)
	}
	for of := range slices.Chunk(found, len(names)) {
		texts := make([]string, len(names))
		for i, value := range of {
			texts[i], _ = value.(string)
		}
		values = append(values, texts)
	}
	return values, nil
}

// maxListed is how many failed records the ranges of one run list in Redis. A little more than an entry has, because ranges do not
// end in their order.
const maxListed = 10 * MaxFailedRecords

// endedRanges returns the ranges that have ended among the thousand from the given index on, and the records that failed in them.
func (s *RunState) endedRanges(ctx context.Context, from int) (ended []EndedRange, failed []FailedRecord, err error) {
	values, err := s.page(ctx, from, "end", "reason", "began", "closed", "worker", "counts", "failed")
	if err != nil {
		return nil, nil, err
	}
	for i, of := range values {
		at := func(field int) time.Time { return fromMillis(milliseconds(of[field]).Milliseconds()) }
		if of[0] == "" {
			continue
		}
		r := EndedRange{Index: from + i, Worker: of[4], Started: at(2), Ended: at(3), Outcome: OutcomeCompleted}
		if of[0] == rangeFailed {
			r.Outcome, r.Error = OutcomeFailed, shortened(of[1])
		}
		var counts RecordCounts
		if json.Unmarshal([]byte(of[5]), &counts) == nil {
			r.Counts = &counts
		}
		var records []FailedRecord
		if json.Unmarshal([]byte(of[6]), &records) == nil {
			failed = append(failed, records...)
		}
		ended = append(ended, r)
	}
	return ended, failed, nil
}

const (
	rangeDone   = "done"
	rangeFailed = "failed"
)

// EnqueueRange enqueues a range that AddRange has recorded, with the payload of its run. A range that is in the queue, or
// active, stays as it is.
func (j *Jobs) EnqueueRange(ctx context.Context, def tasks.Definition, id tasks.RangeID, payload []byte) error {
	_, err := j.enqueue(ctx, def.RangeQueue(), id.String(), def.NewRangeTask(id, payload, telemetry.TraceHeaders(ctx)))
	return err
}

// RangeState is what Redis keeps of one range from one attempt to the next. The attempt that opened it last owns it, and only
// the owner can change it: the methods return ErrFenced to any other, and ErrNoRange if the range or its run has ended. Started
// is when the first attempt at the run began.
type RangeState struct {
	Opened
	// Spec is what the range is, as given to AddRange.
	Spec []byte
	// Attempt, Counts and FailedRecords are for the run's entry in the history. The caller sets them before Complete or Fail.
	Attempt       *EndedAttempt
	Counts        *RecordCounts
	FailedRecords []FailedRecord

	rdb         redis.UniversalClient
	run, ranges string // keys
	channel     string // of announcements
	id          tasks.RangeID
	owner       string
}

// OpenRange makes the caller the owner of the range. Calling it twice with the same owner is calling it once. It returns
// ErrNoRange if the range has ended, or its run has ended or was cancelled.
func (j *Jobs) OpenRange(ctx context.Context, id tasks.RangeID, owner string) (*RangeState, error) {
	s := &RangeState{rdb: j.rdb, run: j.keys.run(id.Run), ranges: j.keys.ranges(id.Run), channel: j.Channel(), id: id, owner: owner}
	reply, err := openRangeScript.Run(ctx, j.rdb, []string{s.run, s.ranges, j.keys.task(id.Run)}, id.Index, owner, runSeconds,
		millis(time.Now())).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("opening range %s: %w", id, err)
	}
	if len(reply) == 0 {
		return nil, ErrNoRange
	}
	s.Opened = opened(reply)
	s.Spec, s.Waited = []byte(reply[5]), milliseconds(reply[6])
	s.Retries, _ = strconv.Atoi(reply[7])
	return s, nil
}

// Save stores the checkpoint, and how far the range is.
func (s *RangeState) Save(ctx context.Context, checkpoint []byte, p Progress) error {
	return s.change(ctx, saveRangeScript, runSeconds, p.Percent, checkpoint, p.counts())
}

// Release ends the attempt at no cost. The state stays for the next attempt, without an owner.
func (s *RangeState) Release(ctx context.Context) error {
	return s.change(ctx, releaseRangeScript)
}

// Wait records that the range is about to be released because what it needs is away, and when the next attempt is due. It returns
// when that happened first, without any progress since.
func (s *RangeState) Wait(ctx context.Context, until time.Time) (since time.Time, err error) {
	n, err := s.changed(ctx, waitRangeScript, millis(time.Now()), millis(until))
	return time.UnixMilli(n), err
}

// FailAttempt ends the attempt, and counts it as failed. The state stays for the next attempt, without an owner.
func (s *RangeState) FailAttempt(ctx context.Context) error {
	return s.change(ctx, failRangeScript)
}

// Complete ends the range. The checkpoint counts all that was done.
func (s *RangeState) Complete(ctx context.Context, checkpoint []byte) error {
	return s.end(ctx, rangeDone, checkpoint, "")
}

// Fail ends the range, and stores the reason with its run.
func (s *RangeState) Fail(ctx context.Context, reason error) error {
	return s.end(ctx, rangeFailed, nil, reason.Error())
}

func (s *RangeState) end(ctx context.Context, end string, checkpoint []byte, reason string) error {
	ended, worker, counts, failed := time.Now(), "", "", ""
	if s.Attempt != nil {
		ended, worker = s.Attempt.Ended, s.Attempt.Worker
	}
	if s.Counts != nil {
		encoded, _ := json.Marshal(s.Counts) // it has numbers only
		counts = string(encoded)
	}
	if len(s.FailedRecords) > 0 {
		encoded, _ := json.Marshal(s.FailedRecords) // it has strings only
		failed = string(encoded)
	}
	return s.change(ctx, endRangeScript, runSeconds, end, checkpoint, reason, millis(ended), worker, counts, failed, len(s.FailedRecords),
		maxListed, s.channel)
}

func (s *RangeState) change(ctx context.Context, script *redis.Script, args ...any) error {
	_, err := s.changed(ctx, script, args...)
	return err
}

// changed returns what the script returned.
func (s *RangeState) changed(ctx context.Context, script *redis.Script, args ...any) (int64, error) {
	n, err := script.Run(ctx, s.rdb, []string{s.ranges, s.run}, append([]any{s.id.Index, s.owner}, args...)...).Int64()
	if err != nil {
		return 0, fmt.Errorf("updating range %s: %w", s.id, err)
	}
	switch n {
	case -1:
		return 0, ErrNoRange
	case 0:
		return 0, ErrFenced
	}
	return n, nil
}
