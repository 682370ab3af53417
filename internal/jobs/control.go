package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Pause stops new runs of the job type; what is active goes on. Pausing twice is no error.
func (j *Jobs) Pause(ctx context.Context, def tasks.Definition) error {
	return j.setPaused(ctx, def, true, j.inspector.PauseQueue)
}

// Resume lets runs of the job type start again. Resuming what runs is no error.
func (j *Jobs) Resume(ctx context.Context, def tasks.Definition) error {
	if err := j.setPaused(ctx, def, false, j.inspector.UnpauseQueue); err != nil {
		return err
	}
	j.announce(ctx, def.Name)
	return nil
}

// IsPaused reports whether the job type is paused. It asks for that alone, where asynq's GetQueueInfo looks at the whole
// queue.
func (j *Jobs) IsPaused(ctx context.Context, def tasks.Definition) (bool, error) {
	n, err := j.rdb.Exists(ctx, asynqKey(def.Name, "paused")).Result()
	if err != nil {
		return false, fmt.Errorf("looking whether %s is paused: %w", def.Name, err)
	}
	return n > 0, nil
}

// changeTries bounds how often a pause or resume is tried again because somebody did the opposite at the same time.
const changeTries = 10

// setPaused calls change, whose error is ignored when things are as they should be: asynq reports as an error that they
// were so before.
func (j *Jobs) setPaused(ctx context.Context, def tasks.Definition, paused bool, change func(string) error) error {
	// A queue that asynq does not know yet could be paused but would not show it.
	if err := j.Register(ctx); err != nil {
		return err
	}
	var failed error
	for range changeTries {
		if failed = change(def.Name); failed == nil {
			return nil
		}
		info, err := j.inspector.GetQueueInfo(def.Name)
		if err == nil && info.Paused == paused {
			return nil
		}
		if err != nil || ctx.Err() != nil {
			break
		}
		// Somebody else changed it in between.
	}
	return fmt.Errorf("pausing or resuming %s: %w", def.Name, failed)
}

// Removed counts runs that were removed.
type Removed struct {
	Completed, Failed int
}

// Cleanup removes the completed and failed runs of the job type that ended before the given time, in whole seconds.
func (j *Jobs) Cleanup(ctx context.Context, def tasks.Definition, before time.Time) (Removed, error) {
	old := func(ended time.Time) bool { return ended.Before(before) }
	var r Removed
	var err error
	if r.Completed, err = j.remove(ctx, def, j.completed(), old); err != nil {
		return r, err
	}
	r.Failed, err = j.remove(ctx, def, j.failed(), old)
	return r, err
}

// ended is a list of asynq's, oldest first, of runs that have ended.
type ended struct {
	name string
	list func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
	at   func(*asynq.TaskInfo) time.Time
}

func (j *Jobs) completed() ended {
	return ended{"completed", j.inspector.ListCompletedTasks, func(t *asynq.TaskInfo) time.Time { return t.CompletedAt }}
}

func (j *Jobs) failed() ended {
	return ended{"failed", j.inspector.ListArchivedTasks, func(t *asynq.TaskInfo) time.Time {
		if id, err := tasks.ParseRunID(t.ID); err == nil && t.LastFailedAt.IsZero() {
			return id.Reference // archived by hand before it ever ran: asynq keeps no time of that
		}
		return t.LastFailedAt
	}}
}

// listPage is how many runs are looked at in one command.
const listPage = 100

// remove deletes the runs whose end is old, and returns how many there were.
func (j *Jobs) remove(ctx context.Context, def tasks.Definition, e ended, old func(time.Time) bool) (int, error) {
	removed, page := 0, 1
	for ctx.Err() == nil {
		list, err := e.list(def.Name, asynq.PageSize(listPage), asynq.Page(page))
		if notFound(err) {
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("listing %s runs of %s: %w", e.name, def.Name, err)
		}
		var found bool
		for _, info := range list {
			if !old(e.at(info)) {
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
		if !found { // otherwise the rest has moved up into this page
			page++
		}
	}
	return removed, context.Cause(ctx)
}

// delete removes a run that has ended; another process having done so first is no error but reported.
func (j *Jobs) delete(def tasks.Definition, id string) (bool, error) {
	err := j.inspector.DeleteTask(def.Name, id)
	if errors.Is(err, asynq.ErrTaskNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing %s: %w", id, err)
	}
	return true, nil
}

// Trim removes the oldest runs of the job type beyond the numbers that its Definition keeps.
func (j *Jobs) Trim(ctx context.Context, def tasks.Definition) error {
	for _, limit := range []struct {
		ended
		keep int
	}{{j.completed(), def.KeepCompleted}, {j.failed(), def.KeepFailed}} {
		if err := j.trim(ctx, def, limit.ended, limit.keep); err != nil {
			return err
		}
	}
	return nil
}

func (j *Jobs) trim(ctx context.Context, def tasks.Definition, e ended, keep int) error {
	for ctx.Err() == nil {
		list, err := e.list(def.Name, asynq.PageSize(keep+listPage))
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
