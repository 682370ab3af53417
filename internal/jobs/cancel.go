// Cancelling or retrying one run by hand. asynq's own cancelling counts a failed attempt, and its deleting knows nothing of
// the unique key, of the run's state and of its ranges. So these come first here.

package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// cancelPoll is the time between two looks at a run that is between two states, and cancelTries bounds their number.
	cancelPoll  = 20 * time.Millisecond
	cancelTries = 10

	// archivedError is the history's error of a run that was archived on the dashboard. asynq keeps none.
	archivedError = "archived by hand while it waited"
)

var (
	// ErrNoJob is the error for an ID without a run.
	ErrNoJob = errors.New("there is no such job")
	// ErrEnded is the error of Cancel for a run that has ended.
	ErrEnded = errors.New("the job has ended")
	// ErrBusy is the error of Cancel for a run that changes its state again and again meanwhile.
	ErrBusy = errors.New("the job does not stay in one state")
	// ErrNotFailed is the error of Retry for a run that has not failed.
	ErrNotFailed = errors.New("the job has not failed")
)

// KEYS: run, list of entries, dropped. ARGV: entry of the action or "". Returns 0 if the run has not begun yet, or has just ended,
// and otherwise what enter does.
var cancelScript = redis.NewScript(enter + `
if redis.call("EXISTS", KEYS[1]) == 0 then
	return 0
end
local new = redis.call("HSET", KEYS[1], "cancelled", 1) == 1
return new and ARGV[1] ~= "" and enter(KEYS[2], KEYS[3], '{"entry":' .. ARGV[1] .. '}') or 1
`)

// endWaiting begins the scripts that end a run which waits. They return 0 if it does not wait. Otherwise it is taken out of the list of
// asynq's that it waits in, and the function endWaiting adds the entries of the run and of the action, and removes the run's state: a
// worker that had the run, and was frozen, is fenced then. It returns what enter does. The run loses its unique key, and its window: while
// it has one of them, a trigger would enqueue it again. KEYS: task, pending, scheduled, retry, run, ranges, list of entries, dropped,
// unique key, window, due. ARGV: ID, now (ms), the run's entry and the action's, or "".
const endWaiting = `
local state, taken = redis.call("HGET", KEYS[1], "state"), 0
if state == "pending" then
	taken = redis.call("LREM", KEYS[2], 0, ARGV[1])
elseif state == "scheduled" or state == "retry" then
	taken = redis.call("ZREM", KEYS[state == "scheduled" and 3 or 4], ARGV[1])
end
if taken == 0 then
	return 0
end
for i = 9, 10 do
	if redis.call("HGET", KEYS[i], "id") == ARGV[1] then
		redis.call("DEL", KEYS[i])
	end
end
redis.call("ZREM", KEYS[11], ARGV[1])
local function endWaiting()
	local entered = 1
	if ARGV[3] ~= "" then
		entered = math.max(enterRun(KEYS[7], KEYS[8], KEYS[1], ARGV[3], redis.call("HGET", KEYS[5], "started"), ARGV[2], ""),
			enter(KEYS[7], KEYS[8], '{"entry":' .. ARGV[4] .. '}'))
	end
	redis.call("UNLINK", KEYS[5], KEYS[6])
	return entered
end
`

// KEYS and ARGV: those of endWaiting. It is asynq's deletion of a task, and more: no process may die between that and the rest.
var removeScript = redis.NewScript(enter + endWaiting + `
local entered = endWaiting()
redis.call("UNLINK", KEYS[1])
return entered
`)

// KEYS and ARGV: those of endWaiting, and asynq's archived runs, now (s). It is asynq's archiving of a task, and more.
var archiveScript = redis.NewScript(enter + endWaiting + `
redis.call("ZADD", KEYS[12], ARGV[5], ARGV[1])
redis.call("HSET", KEYS[1], "state", "archived")
return endWaiting()
`)

// Cancel ends a run. It removes a run that waits for its turn, for its time or for a retry, and returns true. It tells an
// active run to end, with its ranges, and returns false: the run then fails soon. It can return ErrNoJob, ErrEnded or ErrBusy. The
// history says who has cancelled.
func (j *Jobs) Cancel(ctx context.Context, id tasks.RunID, by Trigger) (removed bool, err error) {
	def, info, err := j.lookUp(ctx, id)
	for range cancelTries {
		if err != nil {
			return false, err
		}
		switch info.State {
		case asynq.TaskStateCompleted, asynq.TaskStateArchived:
			return false, ErrEnded
		case asynq.TaskStateActive:
			if cancelled, err := j.cancelActive(ctx, id, by); cancelled || err != nil {
				return false, err
			}
		default:
			if removed, err := j.removeWaiting(ctx, def, id, info, by); removed || err != nil {
				return removed, err
			}
		}
		// It is between two states. Look again.
		select {
		case <-time.After(cancelPoll):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		def, info, err = j.lookUp(ctx, id)
	}
	return false, ErrBusy
}

func (j *Jobs) cancelActive(ctx context.Context, id tasks.RunID, by Trigger) (bool, error) {
	keys := append([]string{j.keys.run(id)}, j.keys.entries(id.Job)...)
	n, err := cancelScript.Run(ctx, j.rdb, keys, j.encodeEntry(cancelEntry(id, by))).Int()
	if err != nil {
		return false, fmt.Errorf("cancelling %s: %w", id, err)
	}
	j.entered(id.Job, n)
	return n > 0, nil
}

func cancelEntry(id tasks.RunID, by Trigger) Entry {
	e := newAction(EntryCancel, id.Job, by)
	e.Target = id.String()
	return e
}

// waitingKeys are the keys with which removeScript and archiveScript begin.
func (j *Jobs) waitingKeys(def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo) []string {
	key := ""
	if payload, err := def.DecodePayload(info.Payload); err == nil {
		key = payload.UniqueKey()
	}
	keys := []string{
		j.keys.task(id), asynqKey(def.Queue(), "pending"), asynqKey(def.Queue(), "scheduled"), asynqKey(def.Queue(), "retry"),
		j.keys.run(id), j.keys.ranges(id),
	}
	keys = append(keys, j.keys.entries(id.Job)...)
	return append(keys, j.keys.unique(id.Job, key), j.keys.window(id.Job, key), j.keys.due(id.Job, key))
}

// removeWaiting removes a run that waits, and reports whether it did.
func (j *Jobs) removeWaiting(ctx context.Context, def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo, by Trigger) (bool, error) {
	entry, err := j.waitingEntry(ctx, id, info, Entry{
		State: StateRemoved, Error: shortened(newJob(def, id, info).Error),
	})
	if err != nil {
		return false, err
	}
	n, err := removeScript.Run(ctx, j.rdb, j.waitingKeys(def, id, info), id.String(), millis(time.Now()), entry, j.encodeEntry(cancelEntry(id, by))).Int()
	if err != nil {
		return false, fmt.Errorf("removing %s: %w", id, err)
	}
	j.entered(id.Job, n)
	return n > 0, nil
}

// archiveWaiting makes a run that waits a failed one, and reports whether it did.
func (j *Jobs) archiveWaiting(ctx context.Context, def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo, by Trigger) (bool, error) {
	entry, err := j.waitingEntry(ctx, id, info, Entry{State: StateFailed, Error: archivedError})
	if err != nil {
		return false, err
	}
	now := time.Now()
	keys := append(j.waitingKeys(def, id, info), asynqKey(def.Queue(), "archived"))
	n, err := archiveScript.Run(ctx, j.rdb, keys, id.String(), millis(now), entry, j.encodeEntry(cancelEntry(id, by)), now.Unix()).Int()
	if err != nil {
		return false, fmt.Errorf("archiving %s: %w", id, err)
	}
	j.entered(id.Job, n)
	return n > 0, nil
}

// IsCancelled reports whether the run with the ID was cancelled.
func (j *Jobs) IsCancelled(ctx context.Context, id tasks.RunID) (bool, error) {
	cancelled, err := j.rdb.HExists(ctx, j.keys.run(id), "cancelled").Result()
	if err != nil {
		return false, fmt.Errorf("looking whether %s is cancelled: %w", id, err)
	}
	return cancelled, nil
}

// Retry enqueues a failed run once more, with all attempts. It records who has retried it: the name of an API key, or "". It can
// return ErrNoJob or ErrNotFailed.
func (j *Jobs) Retry(ctx context.Context, id tasks.RunID, key string) error {
	def, info, err := j.lookUp(ctx, id)
	if err != nil {
		return err
	}
	if info.State != asynq.TaskStateArchived {
		return ErrNotFailed
	}
	restarted, err := j.restart(ctx, id, key)
	if err != nil {
		return err
	}
	if !restarted { // another client was faster
		if _, _, err := j.lookUp(ctx, id); err != nil {
			return err
		}
		return ErrNotFailed
	}
	err = j.inspector.RunTask(def.Queue(), id.String())
	switch {
	case notFound(err):
		return ErrNoJob
	case err == nil:
		j.announce(ctx, def.Queue())
		return nil
	}
	if _, now, failed := j.lookUp(ctx, id); failed == nil && now.State != asynq.TaskStateArchived {
		return ErrNotFailed // another client was faster
	}
	return fmt.Errorf("retrying %s: %w", id, err)
}

// restart lets a failed run begin anew, and counts that. So a number is skipped, but never used twice, if the process dies before it
// enqueues the run. It returns false if the run has not failed, or waits again.
func (j *Jobs) restart(ctx context.Context, id tasks.RunID, key string) (bool, error) {
	by, _ := json.Marshal(Trigger{Kind: TriggeredByRetry, Key: key, At: time.Now().UnixMilli()}) // its types encode
	keys := []string{j.keys.run(id), j.keys.ranges(id), j.keys.task(id)}
	n, err := retryScript.Run(ctx, j.rdb, keys, by, runSeconds).Int()
	if err != nil {
		return false, fmt.Errorf("retrying %s: %w", id, err)
	}
	return n > 0, nil
}

// lookUp returns the run's Definition, and what asynq knows of its task. It can return ErrNoJob. A task of which only the ID is
// left, or whose message is damaged, is no job.
func (j *Jobs) lookUp(ctx context.Context, id tasks.RunID) (tasks.Definition, *asynq.TaskInfo, error) {
	def, known := j.registry.Lookup(id.Job)
	if !known {
		return def, nil, ErrNoJob
	}
	// asynq's error does not say whether Redis has failed or the task is damaged. Of a damaged one Redis answers us, but not asynq,
	// and that twice.
	var err error
	for range 2 {
		var info *asynq.TaskInfo
		info, err = j.inspector.GetTaskInfo(def.Queue(), id.String())
		switch {
		case err == nil && info.ID == id.String(): // asynq decodes nothing as a message without an ID
			return def, info, nil
		case err == nil, notFound(err):
			return def, nil, ErrNoJob
		}
		if _, failed := j.taskState(ctx, def.Queue(), id.String()); failed != nil {
			return def, nil, failed
		}
	}
	j.log.Warn("A task is damaged", "jobId", id.String(), "error", err)
	return def, nil, ErrNoJob
}
