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

// KEYS: run. Returns 0 if the run has not begun yet, or has just ended.
var cancelScript = redis.NewScript(`
if redis.call("EXISTS", KEYS[1]) == 0 then
	return 0
end
return redis.call("HSET", KEYS[1], "cancelled", 1) + 1
`)

// KEYS: unique key, window, due. ARGV: ID.
var freeKeyScript = redis.NewScript(`
for i = 1, 2 do
	if redis.call("HGET", KEYS[i], "id") == ARGV[1] then
		redis.call("DEL", KEYS[i])
	end
end
redis.call("ZREM", KEYS[3], ARGV[1])
return 1
`)

// Cancel ends a run. It removes a run that waits for its turn, for its time or for a retry, and returns true. It tells an
// active run to end, with its ranges, and returns false: the run then fails soon. It can return ErrNoJob, ErrEnded or ErrBusy.
func (j *Jobs) Cancel(ctx context.Context, id tasks.RunID) (removed bool, err error) {
	def, info, err := j.lookUp(ctx, id)
	for range cancelTries {
		if err != nil {
			return false, err
		}
		switch info.State {
		case asynq.TaskStateCompleted, asynq.TaskStateArchived:
			return false, ErrEnded
		case asynq.TaskStateActive:
			if cancelled, err := j.cancelActive(ctx, id); cancelled || err != nil {
				return false, err
			}
		default:
			if removed, err := j.removeWaiting(ctx, def, id, info); removed || err != nil {
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

func (j *Jobs) cancelActive(ctx context.Context, id tasks.RunID) (bool, error) {
	n, err := cancelScript.Run(ctx, j.rdb, []string{j.keys.run(id)}).Int()
	if err != nil {
		return false, fmt.Errorf("cancelling %s: %w", id, err)
	}
	return n > 0, nil
}

// removeWaiting removes a run that waits, and reports whether it did. It frees the unique key first, and ends the run's window:
// while the run has one of them, a trigger would enqueue the run again.
func (j *Jobs) removeWaiting(ctx context.Context, def tasks.Definition, id tasks.RunID, info *asynq.TaskInfo) (bool, error) {
	if payload, err := def.DecodePayload(info.Payload); err == nil {
		key := payload.UniqueKey()
		keys := []string{j.keys.unique(id.Job, key), j.keys.window(id.Job, key), j.keys.due(id.Job, key)}
		if err := freeKeyScript.Run(ctx, j.rdb, keys, id.String()).Err(); err != nil {
			return false, fmt.Errorf("removing %s: %w", id, err)
		}
	}
	removed, err := j.delete(def, id.String())
	if err != nil && ctx.Err() == nil {
		return false, nil // it has just begun, or Redis is away: the next look tells
	}
	if err != nil || !removed {
		return false, err
	}
	// No worker can take it any more. A worker that had it, and was frozen, is fenced.
	return true, j.forget(ctx, id)
}

// forget removes the state of a run, and with it the run's ranges.
func (j *Jobs) forget(ctx context.Context, id tasks.RunID) error {
	if err := j.rdb.Unlink(ctx, j.keys.run(id), j.keys.ranges(id)).Err(); err != nil {
		return fmt.Errorf("forgetting %s: %w", id, err)
	}
	return nil
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
	by, _ := json.Marshal(Trigger{Kind: TriggeredByRetry, Key: key}) // it has strings only
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
