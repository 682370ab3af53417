// The state of a run, and which attempt owns it. It is a hash with these fields:
//
//	owner       the token of the attempt that works on it, with its worker, "" for none
//	started     when the first attempt began (ms)
//	checkpoint  where the run got to
//	progress    in percent
//	counts      what was done to records, as JSON, and the total once it is known; of a split run, see ranges.go, only the total
//	failures    how many attempts have failed
//	recoveries  how many times it was rescued
//	postponed   when it was first snoozed because only a newer release understands it (ms)
//	waiting     when it was first snoozed because its upstream is away (ms); gone with the next progress
//	waitingFrom when it was so snoozed last (ms), until its next attempt
//	waited      how long it was so snoozed, all together (ms)
//	cancelled   1 once it is cancelled
//	retried     1 if it was retried by hand
//	database    the database of the attempt that started it last, see database.go
//
// Scripts get the current time in ms, and a TTL in seconds.

package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// runTTL is how long the state of a run outlives its last change. The end of a run removes its state. If its task is deleted by
// other means, such as the dashboard, this does.
const runTTL = 7 * 24 * time.Hour

// runSeconds is runTTL as scripts want it.
const runSeconds = int(runTTL / time.Second)

// ErrFenced is the error for an attempt that does not own its run, or its range, any more: another attempt has opened or ended
// it since. The attempt must stop, and can change nothing any more.
var ErrFenced = errors.New("the run was taken over by another worker")

// fence begins each script that changes a run's state: the script returns 0 unless the attempt owns the run. The run is KEYS[1],
// and the attempt's token ARGV[1].
const fence = `
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
`

// KEYS: run, unique key, tick, ranges, due, window, asynq's task. ARGV: owner, now, TTL, ID, "1" if the run starts, tick time or "", database
// or "". Returns {former owner, rescues, started, checkpoint, failures, "1" if it was cancelled, "1" if this is its first start
// ever, "1" if it starts over, time (ms) that it was snoozed, retries by hand}. A checkpoint, and ranges, say nothing of another database: there
// the run starts over.
var openScript = redis.NewScript(recordRescue + `
if ARGV[5] == "1" then
	if redis.call("HGET", KEYS[2], "id") == ARGV[4] then
		redis.call("DEL", KEYS[2])
	end
	redis.call("ZREM", KEYS[5], ARGV[4])
	if redis.call("HGET", KEYS[6], "id") == ARGV[4] then
		redis.call("HSET", KEYS[6], "begun", 1)
		redis.call("HDEL", KEYS[6], "payload", "time")
	end
	-- A tick well ahead of the present was enqueued by a broken clock, and may have been distrusted since.
	if ARGV[6] ~= "" and tonumber(ARGV[6]) < ARGV[2] + 60000 and tonumber(redis.call("GET", KEYS[3]) or "-1") < tonumber(ARGV[6]) then
		redis.call("SET", KEYS[3], ARGV[6])
	end
	redis.call("HDEL", KEYS[1], "postponed")
end
local from = redis.call("HGET", KEYS[1], "waitingFrom")
if from then
	redis.call("HINCRBY", KEYS[1], "waited", ARGV[2] - from)
	redis.call("HDEL", KEYS[1], "waitingFrom")
end
local over = ""
if ARGV[5] == "1" and ARGV[7] ~= "" then
	local database = redis.call("HGET", KEYS[1], "database")
	if database and database ~= ARGV[7] then
		redis.call("HDEL", KEYS[1], "checkpoint", "progress", "counts")
		redis.call("UNLINK", KEYS[4])
		over = "1"
	end
	redis.call("HSET", KEYS[1], "database", ARGV[7])
end
local r = redis.call("HMGET", KEYS[1], "owner", "recoveries", "started", "checkpoint", "failures", "cancelled", "retried", "waited")
local owner, rescues, started = r[1] or "", r[2] or "0", r[3]
if owner == ARGV[1] then
	owner = "" -- asked again, because the answer was lost
elseif owner ~= "" then
	rescues = redis.call("HINCRBY", KEYS[1], "recoveries", 1)
	recordRescue(KEYS[7], owner, ARGV[1], ARGV[2])
end
redis.call("HSET", KEYS[1], "owner", ARGV[1], "started", started or ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return {owner, tostring(rescues), started or ARGV[2], r[4] or "", r[5] or "0", r[6] or "", (started or r[7]) and "" or "1", over, r[8] or "0",
	redis.call("HGET", KEYS[7], "codex:retries") or "0"}
`)

// KEYS: run, asynq's task. ARGV: owner, attempt.
var failScript = redis.NewScript(record + fence + `
redis.call("HINCRBY", KEYS[1], "failures", 1)
redis.call("HSET", KEYS[1], "owner", "")
record(KEYS[2], ARGV[2])
return 1
`)

// KEYS: run, asynq's task. ARGV: owner, TTL, attempt.
var releaseScript = redis.NewScript(record + fence + `
redis.call("HSET", KEYS[1], "owner", "")
redis.call("EXPIRE", KEYS[1], ARGV[2])
record(KEYS[2], ARGV[3])
return 1
`)

// KEYS: run. ARGV: owner, TTL, checkpoint, progress, counts or "".
var saveScript = redis.NewScript(fence + `
redis.call("HSET", KEYS[1], "checkpoint", ARGV[3], "progress", ARGV[4], "counts", ARGV[5])
redis.call("HDEL", KEYS[1], "waiting")
redis.call("EXPIRE", KEYS[1], ARGV[2])
return 1
`)

// KEYS: run. ARGV: owner, now, TTL. Returns when the run was first snoozed without any progress since.
var waitScript = redis.NewScript(fence + `
redis.call("HSETNX", KEYS[1], "waiting", ARGV[2])
redis.call("HSET", KEYS[1], "waitingFrom", ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return tonumber(redis.call("HGET", KEYS[1], "waiting"))
`)

// KEYS: run, ranges, asynq's task, list of entries, dropped, the noticeKeys. ARGV: owner, result or "", attempt, now (ms), counts or "", entry or "", the
// endNotices. Returns 0 if another attempt owns the run, and otherwise what enter does. If the run is not there, this script has ended it before,
// and the answer was lost. asynq writes a result without comparing an owner, so this does it.
var closeScript = redis.NewScript(record + enter + noteEnd + `
local owner = redis.call("HGET", KEYS[1], "owner")
if not owner then
	return 1
elseif owner ~= ARGV[1] then
	return 0
end
if redis.call("EXISTS", KEYS[3]) == 1 then
	if ARGV[2] ~= "" then
		redis.call("HSET", KEYS[3], "result", ARGV[2])
	end
	if ARGV[5] ~= "" then
		redis.call("HSET", KEYS[3], "codex:counts", ARGV[5])
	end
	redis.call("HSET", KEYS[3], "codex:started", redis.call("HGET", KEYS[1], "started") or ARGV[4], "codex:ended", ARGV[4])
	record(KEYS[3], ARGV[3])
end
noteEnd(KEYS[6], KEYS[7], KEYS[8], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12])
local entered = 1
if ARGV[6] ~= "" then
	entered = enterRun(KEYS[4], KEYS[5], KEYS[3], ARGV[6], redis.call("HGET", KEYS[1], "started"), ARGV[4], ARGV[3])
end
redis.call("UNLINK", KEYS[1], KEYS[2]) -- not DEL, which would take Redis 0.3 s for a hundred thousand ranges
return entered
`)

// KEYS: run. ARGV: owner, now, TTL. Returns when the run was first snoozed.
var snoozeScript = redis.NewScript(fence + `
redis.call("HSETNX", KEYS[1], "postponed", ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return tonumber(redis.call("HGET", KEYS[1], "postponed"))
`)

// Opened is what an attempt finds when it opens its run or range.
type Opened struct {
	// Rescued is true if the former owner neither ended nor released it. That worker died, or lost Redis.
	Rescued bool
	// Rescues counts the rescues, with this one.
	Rescues int
	// Failures counts the failed attempts. A run that was retried by hand begins with none.
	Failures int
	// Retries counts how many times the run was retried by hand. A retry that a crash ended may count, too.
	Retries int
	// Started is when the first attempt at the run began.
	Started time.Time
	// Waited is how long the run was snoozed since then.
	Waited time.Duration
	// Checkpoint is what Save was given last. It is nil at the beginning.
	Checkpoint []byte
}

// RunState is what Redis keeps of a run from one attempt to the next. The attempt that opened it last owns it, and only the
// owner can change it: the methods that change it return ErrFenced to any other.
type RunState struct {
	Opened
	// New is true if no attempt at the run has ever begun.
	New bool
	// Cancelled is true if the run was cancelled.
	Cancelled bool
	// StartsOver is true if the run was started on another database before. What it did there does not count.
	StartsOver bool
	// Attempt is the attempt as it ends. The caller sets it before the call that ends it, so that it is recorded.
	Attempt *EndedAttempt
	// Counts is what the run has done by now, for the record. It can be nil.
	Counts *RecordCounts
	// Source and FailedRecords are for the run's entry in the history. The caller sets them before Complete or Fail.
	Source        Source
	FailedRecords []FailedRecord

	jobs              *Jobs
	rdb               redis.UniversalClient
	run, ranges, task string // keys
	id                tasks.RunID
	owner             string
}

// NewOwner returns a new owner token. It names the worker, so that the attempt that takes over knows whose the run was.
func NewOwner(worker string) string { return rand.Text() + " " + worker }

// StartRun begins an attempt at a run: it makes the caller the owner of the run's state, frees the unique key, so that the next
// run with that key can wait, and records the run's tick as handled. Calling it twice with the same owner is calling it once.
func (j *Jobs) StartRun(ctx context.Context, id tasks.RunID, key, owner string) (*RunState, error) {
	return j.openRun(ctx, id, key, "1", owner)
}

// OpenRun makes the caller the owner of the state of a run that it will not start.
func (j *Jobs) OpenRun(ctx context.Context, id tasks.RunID, owner string) (*RunState, error) {
	return j.openRun(ctx, id, "", "", owner)
}

func (j *Jobs) openRun(ctx context.Context, id tasks.RunID, key, start, owner string) (*RunState, error) {
	s := &RunState{jobs: j, rdb: j.rdb, run: j.keys.run(id), ranges: j.keys.ranges(id), task: j.keys.task(id), id: id, owner: owner}
	tick := ""
	if id.Scheduled() && j.believed(id) {
		tick = millis(id.Reference)
	}
	keys := []string{
		s.run, j.keys.unique(id.Job, key), j.keys.tick(id.Job), s.ranges, j.keys.due(id.Job, key), j.keys.window(id.Job, key),
		s.task,
	}
	reply, err := openScript.Run(ctx, j.rdb, keys, s.owner, millis(time.Now()), runSeconds, id.String(), start, tick,
		j.databaseOfRuns()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("opening the state of %s: %w", id, err)
	}
	s.Opened = opened(reply)
	s.Cancelled = reply[5] != ""
	s.New = reply[6] != ""
	s.StartsOver = reply[7] != ""
	s.Waited = milliseconds(reply[8])
	s.Retries, _ = strconv.Atoi(reply[9])
	return s, nil
}

// believed reports whether the run's tick is no later than the next one to come. A later one is a broken clock's: recorded as
// handled, it would silence all ticks before it.
func (j *Jobs) believed(id tasks.RunID) bool {
	def, known := j.registry.Lookup(id.Job)
	if !known || !def.Schedule.Enabled() {
		return true
	}
	next := def.Schedule.Next(time.Now())
	return next.IsZero() || !id.Reference.After(next)
}

// opened reads the answer of a script that opens a run or a range. Its numbers are ours, so they parse.
func opened(reply []string) Opened {
	started, _ := strconv.ParseInt(reply[2], 10, 64)
	o := Opened{Rescued: reply[0] != "", Started: time.UnixMilli(started)}
	o.Rescues, _ = strconv.Atoi(reply[1])
	o.Failures, _ = strconv.Atoi(reply[4])
	if reply[3] != "" {
		o.Checkpoint = []byte(reply[3])
	}
	return o
}

// milliseconds reads a number of ours, which parses.
func milliseconds(text string) time.Duration {
	ms, _ := strconv.ParseInt(text, 10, 64)
	return time.Duration(ms) * time.Millisecond
}

// Save stores the checkpoint, and how far the run is.
func (s *RunState) Save(ctx context.Context, checkpoint []byte, p Progress) error {
	return s.change(ctx, saveScript, runSeconds, checkpoint, p.Percent, p.counts())
}

// Release ends the attempt at no cost. The state stays for the next attempt, without an owner.
func (s *RunState) Release(ctx context.Context) error {
	return s.changeKeys(ctx, releaseScript, []string{s.run, s.task}, s.owner, runSeconds, s.ending())
}

// FailAttempt ends the attempt, and counts it as failed. The state stays for the next attempt, without an owner.
func (s *RunState) FailAttempt(ctx context.Context) error {
	return s.changeKeys(ctx, failScript, []string{s.run, s.task}, s.owner, s.ending())
}

// Snooze records that the run is snoozed, and returns when it was snoozed first.
func (s *RunState) Snooze(ctx context.Context) (since time.Time, err error) {
	ms, err := snoozeScript.Run(ctx, s.rdb, []string{s.run}, s.owner, millis(time.Now()), runSeconds).Int64()
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("snoozing run %s: %w", s.id, err)
	case ms == 0:
		return time.Time{}, ErrFenced
	}
	return time.UnixMilli(ms), nil
}

// Wait records that the run is about to be released because what it needs is away. It returns when that happened first, without
// any progress since.
func (s *RunState) Wait(ctx context.Context, _ time.Time) (since time.Time, err error) {
	ms, err := waitScript.Run(ctx, s.rdb, []string{s.run}, s.owner, millis(time.Now()), runSeconds).Int64()
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("snoozing run %s: %w", s.id, err)
	case ms == 0:
		return time.Time{}, ErrFenced
	}
	return time.UnixMilli(ms), nil
}

// Complete removes the state of a run that has completed, and its ranges, and stores the result, which must be JSON. It adds the
// run's entry to the history.
func (s *RunState) Complete(ctx context.Context, result []byte) error {
	return s.close(ctx, result, Entry{State: StateCompleted, Result: result})
}

// Fail removes the state of a run that has failed, and its ranges. asynq stores the reason. Fail adds the run's entry to the
// history.
func (s *RunState) Fail(ctx context.Context, reason error) error {
	e := Entry{State: StateFailed, Error: shortened(reason.Error())}
	if s.Attempt != nil && s.Attempt.Outcome == OutcomeCancelled {
		e.State = StateCancelled
	}
	return s.close(ctx, nil, e)
}

func (s *RunState) close(ctx context.Context, result []byte, e Entry) error {
	entry, err := s.entry(ctx, e)
	if err != nil {
		return err
	}
	counts := ""
	if s.Counts != nil {
		encoded, _ := json.Marshal(s.Counts) // it has numbers only
		counts = string(encoded)
	}
	keys := append([]string{s.run, s.ranges, s.task}, s.jobs.keys.entries(s.id.Job)...)
	keys = append(keys, s.jobs.keys.noticeKeys(s.id.Job)...)
	args := append([]any{s.owner, result, s.ending(), millis(s.endedAt()), counts, entry}, s.endNotices()...)
	return s.changeKeys(ctx, closeScript, keys, args...)
}

// endNotices returns the notices of the run's end. There are none if the caller has not said how it ends.
func (s *RunState) endNotices() []any {
	if s.Attempt == nil {
		return endNotices(s.id, "", time.Now(), "", "", nil)
	}
	return endNotices(s.id, strconv.Itoa(s.Retries), s.Attempt.Ended, s.Attempt.Outcome, s.Attempt.Error, s.Counts)
}

// ending returns the attempt that ends, as Redis has it. It is "" if the caller has not set it.
func (s *RunState) ending() string {
	if s.Attempt == nil {
		return ""
	}
	return s.Attempt.encode()
}

// endedAt returns when the run ended.
func (s *RunState) endedAt() time.Time {
	if s.Attempt == nil {
		return time.Now()
	}
	return s.Attempt.Ended
}

// change runs a script that begins with fence on the run's state.
func (s *RunState) change(ctx context.Context, script *redis.Script, args ...any) error {
	return s.changeKeys(ctx, script, []string{s.run}, append([]any{s.owner}, args...)...)
}

func (s *RunState) changeKeys(ctx context.Context, script *redis.Script, keys []string, args ...any) error {
	n, err := script.Run(ctx, s.rdb, keys, args...).Int()
	if err != nil {
		return fmt.Errorf("updating the state of run %s: %w", s.id, err)
	}
	if n == 0 {
		return ErrFenced
	}
	s.jobs.entered(s.id.Job, n)
	return nil
}
