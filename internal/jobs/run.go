package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// runTTL is how long the state of a run outlives its last change. A run normally removes it itself; this is for the
// task that was deleted behind its back.
const runTTL = 7 * 24 * time.Hour

// runSeconds is runTTL as scripts want it.
const runSeconds = int(runTTL / time.Second)

// ErrFenced is returned to an attempt whose run, or range, another attempt has opened since, or has ended. It must stop, and
// can change nothing any more.
var ErrFenced = errors.New("the run was taken over by another worker")

// KEYS: run, waiting, tick. ARGV: owner, now, TTL in seconds, ID, "1" when the run starts, tick time or "". Returns {former
// owner, recoveries, started, checkpoint, failures, "1" when it was cancelled, "1" when this is its first start ever}.
var openScript = redis.NewScript(`
if ARGV[5] == "1" then
	if redis.call("HGET", KEYS[2], "id") == ARGV[4] then
		redis.call("DEL", KEYS[2])
	end
	if ARGV[6] ~= "" and tonumber(redis.call("GET", KEYS[3]) or "-1") < tonumber(ARGV[6]) then
		redis.call("SET", KEYS[3], ARGV[6])
	end
	redis.call("HDEL", KEYS[1], "postponed")
end
local r = redis.call("HMGET", KEYS[1], "owner", "recoveries", "started", "checkpoint", "failures", "cancelled", "retried")
local owner, recoveries, started = r[1] or "", r[2] or "0", r[3]
if owner == ARGV[1] then
	owner = "" -- asked again, because the answer was lost
elseif owner ~= "" then
	recoveries = redis.call("HINCRBY", KEYS[1], "recoveries", 1)
end
redis.call("HSET", KEYS[1], "owner", ARGV[1], "started", started or ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return {owner, tostring(recoveries), started or ARGV[2], r[4] or "", r[5] or "0", r[6] or "", (started or r[7]) and "" or "1"}
`)

// KEYS: run. ARGV: owner. Returns 0 when the owner is another one.
var failScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("HINCRBY", KEYS[1], "failures", 1)
redis.call("HSET", KEYS[1], "owner", "")
return 1
`)

// KEYS: run. ARGV: owner, TTL in seconds, field, value, ... Returns 0 when the owner is another one.
var updateScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("HSET", KEYS[1], unpack(ARGV, 3))
redis.call("EXPIRE", KEYS[1], ARGV[2])
return 1
`)

// KEYS: run, ranges, asynq's task. ARGV: owner, result or "". Returns 0 when the owner is another one. What is gone was closed
// before, and the answer lost. asynq's own way of writing a result knows no owner: it would write it to any run of this ID.
var closeScript = redis.NewScript(`
local owner = redis.call("HGET", KEYS[1], "owner")
if not owner then
	return 1
elseif owner ~= ARGV[1] then
	return 0
end
if ARGV[2] ~= "" and redis.call("EXISTS", KEYS[3]) == 1 then
	redis.call("HSET", KEYS[3], "result", ARGV[2])
end
redis.call("UNLINK", KEYS[1], KEYS[2]) -- not DEL: of a hundred thousand ranges that would take Redis 0.3 s
return 1
`)

// KEYS: run. ARGV: owner, now, TTL in seconds. Returns 0 when the owner is another one, otherwise the first time.
var snoozeScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("HSETNX", KEYS[1], "postponed", ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return tonumber(redis.call("HGET", KEYS[1], "postponed"))
`)

// Opened is what an attempt finds when it opens its run or range.
type Opened struct {
	// Rescued is true when the former owner neither ended it nor released it: it died, or lost Redis.
	Rescued bool
	// Rescues counts how often that has happened.
	Rescues int
	// Failures counts the attempts that have failed. A run that is retried by hand has none.
	Failures int
	// Started is when the first attempt at the run began.
	Started time.Time
	// Checkpoint is what was saved last; nil at the beginning.
	Checkpoint []byte
}

// RunState is what Redis keeps of a run from one attempt to the next, and which attempt owns it. Only the one that opened it
// last can change it; the methods return ErrFenced to any other.
type RunState struct {
	Opened
	// New is true when no attempt at the run has ever begun.
	New bool
	// Cancelled is true when the run is to end.
	Cancelled bool

	rdb   redis.UniversalClient
	id    tasks.RunID
	owner string
}

// NewOwner returns a name for an attempt as the owner of its run's state.
func NewOwner() string { return rand.Text() }

// StartRun records that a run has left the queue, so that the next one with its unique key may wait, and that its tick was
// dealt with, and makes the caller the owner of its state. Doing it twice as the same owner is doing it once.
func (j *Jobs) StartRun(ctx context.Context, id tasks.RunID, key, owner string) (*RunState, error) {
	return j.openRun(ctx, id, waitingKey(id.Job, key), "1", owner)
}

// OpenRun makes the caller the owner of the state of a run that it cannot start.
func (j *Jobs) OpenRun(ctx context.Context, id tasks.RunID, owner string) (*RunState, error) {
	return j.openRun(ctx, id, waitingKey(id.Job, ""), "", owner)
}

func (j *Jobs) openRun(ctx context.Context, id tasks.RunID, waiting, start, owner string) (*RunState, error) {
	s := &RunState{rdb: j.rdb, id: id, owner: owner}
	tick := ""
	if id.Scheduled() {
		tick = millis(id.Reference)
	}
	reply, err := openScript.Run(ctx, j.rdb, []string{s.key(), waiting, tickKey(id.Job)},
		s.owner, millis(time.Now()), runSeconds, id.String(), start, tick).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("opening the state of %s: %w", id, err)
	}
	s.Opened = opened(reply)
	s.Cancelled = reply[5] != ""
	s.New = reply[6] != ""
	return s, nil
}

// opened reads the answer of a script that opens a run or a range: the former owner, and the rest as numbers that we wrote,
// but for the checkpoint.
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

// Save keeps the checkpoint and the progress in percent.
func (s *RunState) Save(ctx context.Context, checkpoint []byte, progress int) error {
	return s.compareAndDo(ctx, updateScript, runSeconds, "checkpoint", checkpoint, "progress", progress)
}

// Release keeps the state for the run's next attempt and gives up owning it.
func (s *RunState) Release(ctx context.Context) error {
	return s.compareAndDo(ctx, updateScript, runSeconds, "owner", "")
}

// FailAttempt counts a failed attempt, keeps the state for the next one and gives up owning it.
func (s *RunState) FailAttempt(ctx context.Context) error {
	return s.compareAndDo(ctx, failScript)
}

// Snooze remembers that the run is put off for a worker that understands it, and returns when that happened first.
func (s *RunState) Snooze(ctx context.Context) (since time.Time, err error) {
	ms, err := snoozeScript.Run(ctx, s.rdb, []string{s.key()}, s.owner, millis(time.Now()), runSeconds).Int64()
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("snoozing run %s: %w", s.id, err)
	case ms == 0:
		return time.Time{}, ErrFenced
	}
	return time.UnixMilli(ms), nil
}

// Complete ends the state together with its run, and with its ranges, and keeps the result, which is JSON.
func (s *RunState) Complete(ctx context.Context, result []byte) error {
	return s.close(ctx, result)
}

// Fail ends the state together with its run, and with its ranges. The reason is for asynq to keep.
func (s *RunState) Fail(ctx context.Context, _ error) error { return s.close(ctx, nil) }

func (s *RunState) close(ctx context.Context, result []byte) error {
	task := asynqKey(s.id.Job, "t:"+s.id.String())
	return s.compare(ctx, closeScript, []string{s.key(), s.rangesKey(), task}, s.owner, result)
}

// compareAndDo runs a script on the run's state that compares the owner first.
func (s *RunState) compareAndDo(ctx context.Context, script *redis.Script, args ...any) error {
	return s.compare(ctx, script, []string{s.key()}, append([]any{s.owner}, args...)...)
}

func (s *RunState) compare(ctx context.Context, script *redis.Script, keys []string, args ...any) error {
	n, err := script.Run(ctx, s.rdb, keys, args...).Int()
	if err != nil {
		return fmt.Errorf("updating the state of run %s: %w", s.id, err)
	}
	if n == 0 {
		return ErrFenced
	}
	return nil
}

func (s *RunState) key() string { return runKey(s.id.Job, s.id.String()) }

func (s *RunState) rangesKey() string { return rangesKey(s.id.Job, s.id.String()) }
