// Pausing job types, and removing runs that have ended.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// KEYS: paused, list of entries, dropped. ARGV: now (s), entry or "". Returns 0 if the queue is paused already, and otherwise what
// enter does.
var pauseScript = redis.NewScript(enter + `
if not redis.call("SET", KEYS[1], ARGV[1], "NX") then
	return 0
end
return ARGV[2] == "" and 1 or enter(KEYS[2], KEYS[3], '{"entry":' .. ARGV[2] .. '}')
`)

// KEYS: paused, list of entries, dropped. ARGV: entry or "". Returns 0 if the queue is not paused, and otherwise what enter does.
var resumeScript = redis.NewScript(enter + `
if redis.call("DEL", KEYS[1]) == 0 then
	return 0
end
return ARGV[1] == "" and 1 or enter(KEYS[2], KEYS[3], '{"entry":' .. ARGV[1] .. '}')
`)

// Pause stops new runs of the job type. Active ones go on. Pausing twice is no error. The history says who has paused.
func (j *Jobs) Pause(ctx context.Context, def tasks.Definition, by Trigger) error {
	// asynq's own way returns an error if the queue is paused already.
	keys := append([]string{asynqKey(def.Queue(), "paused")}, j.keys.entries(def.Name)...)
	entry := j.encodeEntry(newAction(EntryPause, def.Name, by))
	n, err := pauseScript.Run(ctx, j.rdb, keys, time.Now().Unix(), entry).Int()
	if err != nil {
		return fmt.Errorf("pausing %s: %w", def.Name, err)
	}
	j.entered(def.Name, n)
	// The dashboard only shows a queue that asynq knows.
	return j.Register(ctx)
}

// Resume ends a pause. Resuming a job type that is not paused is no error. The history says who has resumed.
func (j *Jobs) Resume(ctx context.Context, def tasks.Definition, by Trigger) error {
	keys := append([]string{asynqKey(def.Queue(), "paused")}, j.keys.entries(def.Name)...)
	n, err := resumeScript.Run(ctx, j.rdb, keys, j.encodeEntry(newAction(EntryResume, def.Name, by))).Int()
	if err != nil {
		return fmt.Errorf("resuming %s: %w", def.Name, err)
	}
	j.entered(def.Name, n)
	j.announce(ctx, def.Queue())
	return nil
}

// IsPaused reports whether the job type is paused. asynq's GetQueueInfo would look at the whole queue for that.
func (j *Jobs) IsPaused(ctx context.Context, def tasks.Definition) (bool, error) {
	n, err := j.rdb.Exists(ctx, asynqKey(def.Queue(), "paused")).Result()
	if err != nil {
		return false, fmt.Errorf("looking whether %s is paused: %w", def.Name, err)
	}
	return n > 0, nil
}

// Removed counts the runs that Cleanup removed.
type Removed struct {
	Completed, Failed int
}

// Cleanup removes the completed and failed runs of the job type that ended before the given time. asynq knows the end in whole
// seconds. With an error Cleanup still returns how many runs it has removed. The history says who has removed how many, unless
// there were none. It keeps its entries of the runs.
func (j *Jobs) Cleanup(ctx context.Context, def tasks.Definition, before time.Time, by Trigger) (Removed, error) {
	var r Removed
	var err error
	if r.Completed, err = j.remove(ctx, def, j.completed(), before); err == nil {
		r.Failed, err = j.remove(ctx, def, j.failed(), before)
	}
	if r == (Removed{}) {
		return r, err
	}
	e := newAction(EntryCleanup, def.Name, by)
	e.Removed = &r
	entering, cancel := context.WithTimeout(context.WithoutCancel(ctx), enterTimeout) // what is removed is removed
	defer cancel()
	return r, errors.Join(err, j.enter(entering, e))
}

// endedRuns is one of asynq's lists of runs that have ended, oldest first.
type endedRuns struct {
	name string
	list func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
	end  func(*asynq.TaskInfo) time.Time
}

func (j *Jobs) completed() endedRuns {
	return endedRuns{"completed", j.inspector.ListCompletedTasks, func(t *asynq.TaskInfo) time.Time { return t.CompletedAt }}
}

func (j *Jobs) failed() endedRuns {
	return endedRuns{"failed", j.inspector.ListArchivedTasks, func(t *asynq.TaskInfo) time.Time {
		if id, err := tasks.ParseRunID(t.ID); err == nil && t.LastFailedAt.IsZero() {
			return id.Reference // archived by hand before it ever ran, of which asynq keeps no time
		}
		return t.LastFailedAt
	}}
}

// listPage is how many runs one command lists.
const listPage = 100

// remove deletes the runs that ended before the time, and returns their number.
func (j *Jobs) remove(ctx context.Context, def tasks.Definition, e endedRuns, before time.Time) (int, error) {
	removed, page := 0, 1
	for ctx.Err() == nil {
		list, err := e.list(def.Queue(), asynq.PageSize(listPage), asynq.Page(page))
		if notFound(err) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("listing %s runs of %s: %w", e.name, def.Name, err)
		}
		var found bool
		for _, info := range list {
			if !e.end(info).Before(before) {
				continue
			}
			gone, err := j.delete(def, info.ID)
			if err != nil {
				return removed, err
			}
			if gone {
				found = true
				removed++
			}
		}
		if len(list) < listPage {
			return removed, nil
		}
		if !found { // otherwise the rest has moved into this page
			page++
		}
	}
	return removed, context.Cause(ctx)
}

// delete removes a task that is not active. It returns false and no error if another process was faster.
func (j *Jobs) delete(def tasks.Definition, id string) (bool, error) {
	err := j.inspector.DeleteTask(def.Queue(), id)
	if errors.Is(err, asynq.ErrTaskNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing %s: %w", id, err)
	}
	return true, nil
}

// Trim removes the oldest completed and failed runs of the job type, beyond the numbers that its Definition keeps.
func (j *Jobs) Trim(ctx context.Context, def tasks.Definition) error {
	if err := j.trim(ctx, def, j.completed(), def.KeepCompleted); err != nil {
		return err
	}
	return j.trim(ctx, def, j.failed(), def.KeepFailed)
}

func (j *Jobs) trim(ctx context.Context, def tasks.Definition, e endedRuns, keep int) error {
	for ctx.Err() == nil {
		list, err := e.list(def.Queue(), asynq.PageSize(keep+listPage))
		if notFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing %s runs of %s: %w", e.name, def.Name, err)
		}
		for _, info := range list[:max(0, len(list)-keep)] {
			if _, err := j.delete(def, info.ID); err != nil {
				return err
			}
		}
		if len(list) < keep+listPage {
			return nil
		}
	}
	return context.Cause(ctx)
}
