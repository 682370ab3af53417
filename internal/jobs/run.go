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

// ErrSuperseded is returned when another worker has taken the run over.
var ErrSuperseded = errors.New("the run was taken over by another worker")

// KEYS: run. ARGV: owner, now, TTL in seconds. Returns {former owner, recoveries, started, checkpoint, failures, "1" when it
// was cancelled, when it was postponed, "1" when this is its first start}.
var openScript = redis.NewScript(`
local owner = redis.call("HGET", KEYS[1], "owner") or ""
if owner == ARGV[1] then
	owner = "" -- asked again, because the answer was lost
elseif owner ~= "" then
	redis.call("HINCRBY", KEYS[1], "recoveries", 1)
end
local new = redis.call("HSETNX", KEYS[1], "started", ARGV[2])
redis.call("HSET", KEYS[1], "owner", ARGV[1])
redis.call("EXPIRE", KEYS[1], ARGV[3])
local r = redis.call("HMGET", KEYS[1], "recoveries", "started", "checkpoint", "failures", "cancelled", "postponed")
return {owner, r[1] or "0", r[2], r[3] or "", r[4] or "0", r[5] or "", r[6] or "", tostring(new)}
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

// KEYS: run. ARGV: owner. Returns 0 when the owner is another one.
var understoodScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("HDEL", KEYS[1], "postponed")
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

// KEYS: run, ranges. ARGV: owner. Returns 0 when the owner is another one. What is gone was closed before, and the answer lost.
var closeScript = redis.NewScript(`
local owner = redis.call("HGET", KEYS[1], "owner")
if owner and owner ~= ARGV[1] then
	return 0
end
redis.call("UNLINK", KEYS[1], KEYS[2]) -- not DEL: of a hundred thousand ranges that would take Redis 0.3 s
return 1
`)

// KEYS: run. ARGV: owner, now, TTL in seconds. Returns 0 when the owner is another one, otherwise the first time.
var postponeScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "owner") ~= ARGV[1] then
	return 0
end
redis.call("HSETNX", KEYS[1], "postponed", ARGV[2])
redis.call("EXPIRE", KEYS[1], ARGV[3])
return tonumber(redis.call("HGET", KEYS[1], "postponed"))
`)

// RunState is what is remembered of a run from one attempt to the next: where it got to, and whose it is. Only the
// owner that opened it last can change it.
type RunState struct {
	// New is true when nobody has opened it before.
	New bool
	// Recovered is true when the former owner neither ended the run nor gave it back: it died, or lost Redis.
	Recovered bool
	// Recoveries counts how often that has happened to this run.
	Recoveries int
	// Started is when the run's first attempt began.
	Started time.Time
	// Cancelled is true when somebody wants the run to end.
	Cancelled bool
	// Postponed is true when the run was put back by a worker that did not understand it, see Postpone.
	Postponed bool
	// Failures counts the attempts that have failed. A run that has ended and is enqueued again has none.
	Failures int
	// Checkpoint is what was saved last; nil at the beginning.
	Checkpoint []byte

	rdb   redis.UniversalClient
	id    tasks.RunID
	owner string
}

// NewOwner returns a name for an attempt as the owner of its run's state.
func NewOwner() string { return rand.Text() }

// OpenRun makes the caller the owner of the run's state, which is made if there is none. Doing it twice as the same
// owner is doing it once.
func (j *Jobs) OpenRun(ctx context.Context, id tasks.RunID, owner string) (*RunState, error) {
	s := &RunState{rdb: j.rdb, id: id, owner: owner}
	reply, err := openScript.Run(ctx, j.rdb, []string{s.key()}, s.owner, millis(time.Now()), int(runTTL.Seconds())).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("opening the state of %s: %w", id, err)
	}
	s.New = reply[7] == "1"
	s.Recovered = reply[0] != ""
	s.Recoveries, _ = strconv.Atoi(reply[1]) // numbers that we wrote
	started, _ := strconv.ParseInt(reply[2], 10, 64)
	s.Started = time.UnixMilli(started)
	s.Failures, _ = strconv.Atoi(reply[4])
	s.Cancelled = reply[5] != ""
	s.Postponed = reply[6] != ""
	if reply[3] != "" {
		s.Checkpoint = []byte(reply[3])
	}
	return s, nil
}

// Save keeps the checkpoint and the progress in percent.
func (s *RunState) Save(ctx context.Context, checkpoint []byte, progress int) error {
	return s.update(ctx, "checkpoint", checkpoint, "progress", progress)
}

// GiveBack keeps the state for the run's next attempt and gives up owning it.
func (s *RunState) GiveBack(ctx context.Context) error { return s.update(ctx, "owner", "") }

// FailAttempt counts a failed attempt, keeps the state for the next one and gives up owning it.
func (s *RunState) FailAttempt(ctx context.Context) error {
	return s.compareAndDo(ctx, failScript, []string{s.key()}, s.owner)
}

// Postpone remembers that the run was put back for somebody who can do it, and returns when that happened first.
func (s *RunState) Postpone(ctx context.Context) (since time.Time, err error) {
	ms, err := postponeScript.Run(ctx, s.rdb, []string{s.key()}, s.owner, millis(time.Now()), int(runTTL.Seconds())).Int64()
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("postponing run %s: %w", s.id, err)
	case ms == 0:
		return time.Time{}, ErrSuperseded
	}
	return time.UnixMilli(ms), nil
}

// Understand forgets that the run was ever postponed.
func (s *RunState) Understand(ctx context.Context) error {
	return s.compareAndDo(ctx, understoodScript, []string{s.key()}, s.owner)
}

// Verify returns ErrSuperseded when the state has another owner.
func (s *RunState) Verify(ctx context.Context) error { return s.update(ctx, "owner", s.owner) }

func (s *RunState) update(ctx context.Context, fieldsAndValues ...any) error {
	args := append([]any{s.owner, int(runTTL.Seconds())}, fieldsAndValues...)
	return s.compareAndDo(ctx, updateScript, []string{s.key()}, args...)
}

// Close ends the state together with its run, and with its ranges.
func (s *RunState) Close(ctx context.Context) error {
	return s.compareAndDo(ctx, closeScript, []string{s.key(), s.rangesKey()}, s.owner)
}

func (s *RunState) compareAndDo(ctx context.Context, script *redis.Script, keys []string, args ...any) error {
	n, err := script.Run(ctx, s.rdb, keys, args...).Int()
	if err != nil {
		return fmt.Errorf("updating the state of run %s: %w", s.id, err)
	}
	if n == 0 {
		return ErrSuperseded
	}
	return nil
}

func (s *RunState) key() string { return runKey(s.id.Job, s.id.String()) }

func (s *RunState) rangesKey() string { return rangesKey(s.id.Job, s.id.String()) }

// progress returns what the run's owner saved last, in percent; 0 when there is nothing.
func (j *Jobs) progress(ctx context.Context, job, id string) (int, error) {
	n, err := j.rdb.HGet(ctx, runKey(job, id), "progress").Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("reading the progress of %s: %w", id, err)
	}
	return n, nil
}
