package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Ending or retrying one run by hand. asynq's own cancelling counts a failed attempt, and its deleting knows nothing of the
// place of a waiting run, of the run's state and of its ranges: so here they come first.

var (
	// ErrNoJob is returned for an ID that is no run's.
	ErrNoJob = errors.New("there is no such job")
	// ErrEnded is returned for what can only be done to a run that has not ended.
	ErrEnded = errors.New("the job has ended")
	// ErrNotFailed is returned for what can only be done to a run that has failed.
	ErrNotFailed = errors.New("the job has not failed")
)

// KEYS: run. ARGV: TTL in seconds.
var cancelScript = redis.NewScript(`
redis.call("HSET", KEYS[1], "cancelled", 1)
redis.call("EXPIRE", KEYS[1], ARGV[1])
return 1
`)

// KEYS: waiting, run, ranges. ARGV: id. Forgets a run that nobody works on.
var forgetScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "id") == ARGV[1] then
	redis.call("DEL", KEYS[1])
end
if (redis.call("HGET", KEYS[2], "owner") or "") == "" then
	redis.call("DEL", KEYS[2], KEYS[3])
end
return 1
`)

// Cancel ends a run. One that waits, for its turn or for a retry, is removed, which it reports as true. One that is active
// is to end soon, with its ranges, and is then listed as failed. It returns ErrNoJob or ErrEnded, too.
func (j *Jobs) Cancel(ctx context.Context, id tasks.RunID) (removed bool, err error) {
	def, info, err := j.lookUp(id)
	for range changeTries {
		if err != nil {
			return false, err
		}
		switch info.State {
		case asynq.TaskStateCompleted, asynq.TaskStateArchived:
			return false, ErrEnded
		case asynq.TaskStateActive:
			return false, j.cancelActive(ctx, id)
		}
		kind := ""
		if payload, err := def.DecodePayload(info.Payload); err == nil {
			kind = payload.Kind()
		}
		if err := j.forget(ctx, id, kind); err != nil {
			return false, err
		}
		gone, err := j.delete(def, id.String())
		if gone {
			return true, nil
		}
		if err != nil && ctx.Err() != nil {
			return false, err
		}
		// Somebody was faster: it has just begun, or is gone.
		if def, info, err = j.lookUp(id); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("cancelling %s: it does not stay in one state", id)
}

func (j *Jobs) cancelActive(ctx context.Context, id tasks.RunID) error {
	if err := cancelScript.Run(ctx, j.rdb, []string{runKey(id.Job, id.String())}, int(runTTL.Seconds())).Err(); err != nil {
		return fmt.Errorf("cancelling %s: %w", id, err)
	}
	// It may have ended meanwhile, and its state with it.
	if _, info, err := j.lookUp(id); err != nil || info.State == asynq.TaskStateCompleted || info.State == asynq.TaskStateArchived {
		return errors.Join(err, j.forget(ctx, id, ""))
	}
	return nil
}

func (j *Jobs) forget(ctx context.Context, id tasks.RunID, kind string) error {
	keys := []string{waitingKey(id.Job, kind), runKey(id.Job, id.String()), rangesKey(id.Job, id.String())}
	if err := forgetScript.Run(ctx, j.rdb, keys, id.String()).Err(); err != nil {
		return fmt.Errorf("forgetting %s: %w", id, err)
	}
	return nil
}

// IsCancelled reports whether somebody wants the run with the ID to end.
func (j *Jobs) IsCancelled(ctx context.Context, def tasks.Definition, id string) (bool, error) {
	cancelled, err := j.rdb.HExists(ctx, runKey(def.Name, id), "cancelled").Result()
	if err != nil {
		return false, fmt.Errorf("looking whether %s is cancelled: %w", id, err)
	}
	return cancelled, nil
}

// Retry enqueues a run that has failed once more, with all its attempts. It returns ErrNoJob or ErrNotFailed, too.
func (j *Jobs) Retry(ctx context.Context, id tasks.RunID) error {
	def, info, err := j.lookUp(id)
	if err != nil {
		return err
	}
	if info.State != asynq.TaskStateArchived {
		return ErrNotFailed
	}
	if err := j.forget(ctx, id, ""); err != nil { // nothing of its former life counts
		return err
	}
	err = j.inspector.RunTask(def.Name, id.String())
	switch {
	case notFound(err):
		return ErrNoJob
	case err != nil:
		return fmt.Errorf("retrying %s: %w", id, err)
	}
	return nil
}

// lookUp returns the run's Definition and what asynq knows of its task.
func (j *Jobs) lookUp(id tasks.RunID) (tasks.Definition, *asynq.TaskInfo, error) {
	def, known := j.registry.Lookup(id.Job)
	if !known {
		return def, nil, ErrNoJob
	}
	info, err := j.inspector.GetTaskInfo(def.Name, id.String())
	switch {
	case notFound(err):
		return def, nil, ErrNoJob
	case err != nil:
		return def, nil, fmt.Errorf("looking up %s: %w", id, err)
	}
	return def, info, nil
}
