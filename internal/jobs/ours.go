// What the dashboard may show and change. asynq has one list of queues, and one of schedulers, for all that use the Redis, and
// what it does to a task knows nothing of the run: of the unique key, the state and the ranges.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

var (
	// ErrRange is the error for a change of one range, which its run would wait for.
	ErrRange = errors.New("a range is changed with its run only")
	// ErrState is the error for a change that is not possible in the state that the task is in by now.
	ErrState = errors.New("the job's state does not allow that")
)

// Queue is a queue of this deployment.
type Queue struct {
	Name string
	Def  tasks.Definition
	// Ranges is true if it is the queue of the job type's ranges.
	Ranges bool
}

// OurQueue returns the queue with the name, and whether it is one of this deployment.
func (j *Jobs) OurQueue(name string) (Queue, bool) {
	for _, def := range j.registry.All() {
		switch name {
		case def.Queue():
			return Queue{Name: name, Def: def}, true
		case def.RangeQueue():
			return Queue{Name: name, Def: def, Ranges: true}, true
		}
	}
	return Queue{}, false
}

// OurQueues returns a hook for a client of asynq's Inspector, which then lists the queues of this deployment only.
func (j *Jobs) OurQueues() redis.Hook { return ourQueues{j} }

type ourQueues struct{ jobs *Jobs }

// DialHook implements redis.Hook.
func (ourQueues) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (o ourQueues) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		list, isList := cmd.(*redis.StringSliceCmd)
		if err == nil && isList && cmd.Name() == "smembers" && cmd.Args()[1] == asynqQueues {
			list.SetVal(slices.DeleteFunc(list.Val(), func(name string) bool {
				_, ours := o.jobs.OurQueue(name)
				return !ours
			}))
		}
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (ourQueues) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// HasQueue reports whether asynq knows the queue. It knows the queue of ranges from the first one on.
func (j *Jobs) HasQueue(ctx context.Context, q Queue) (bool, error) {
	known, err := j.rdb.SIsMember(ctx, asynqQueues, q.Name).Result()
	if err != nil {
		return false, fmt.Errorf("looking for the queue %s: %w", q.Name, err)
	}
	return known, nil
}

// OurEntry reports whether the entry of asynq's Schedulers with the ID is one of this deployment.
func (j *Jobs) OurEntry(ctx context.Context, id string) (bool, error) {
	entries, err := j.schedulerEntries(ctx)
	return slices.ContainsFunc(entries, func(e schedulerEntry) bool { return e.id == id && j.owns(e) }), err
}

// CancelTask cancels the run with the ID, or the run of the range with the ID. It can return ErrNoJob or ErrEnded.
func (j *Jobs) CancelTask(ctx context.Context, q Queue, id string, by Trigger) error {
	run, err := tasks.ParseRunID(id)
	if q.Ranges {
		var part tasks.RangeID
		part, err = tasks.ParseRangeID(id)
		run = part.Run
	}
	if err != nil || run.Job != q.Def.Name {
		return ErrNoJob
	}
	_, err = j.Cancel(ctx, run, by)
	return err
}

// RemoveTask removes a run that has ended, and cancels any other. It can return ErrNoJob, ErrState or ErrRange.
func (j *Jobs) RemoveTask(ctx context.Context, q Queue, id string, by Trigger) error {
	return j.changeTask(q, id, func(run tasks.RunID) error {
		_, err := j.Cancel(ctx, run, by)
		if errors.Is(err, ErrEnded) {
			_, err = j.delete(q.Def, id)
		}
		return err
	}, j.inspector.DeleteTask, asynq.TaskStateActive)
}

// ArchiveTask makes a run that waits a failed one. It can return ErrNoJob, ErrState or ErrRange.
func (j *Jobs) ArchiveTask(ctx context.Context, q Queue, id string, by Trigger) error {
	return j.changeTask(q, id, func(run tasks.RunID) error {
		info, err := j.inspector.GetTaskInfo(q.Name, id)
		switch {
		case err != nil:
			return err
		case !isDue(run, info.State): // it could be retried before its time
			return ErrState
		}
		archived, err := j.archiveWaiting(ctx, q.Def, run, info, by)
		if err == nil && !archived {
			return ErrState
		}
		return err
	}, j.inspector.ArchiveTask, asynq.TaskStateActive, asynq.TaskStateArchived, asynq.TaskStateCompleted)
}

// RunTask retries a run that has failed, and lets one that waits for a retry begin now. It can return ErrNoJob, ErrState or ErrRange.
func (j *Jobs) RunTask(ctx context.Context, q Queue, id string, by Trigger) error {
	return j.changeTask(q, id, func(run tasks.RunID) error {
		if err := j.checkDue(q, run); err != nil {
			return err
		}
		err := j.Retry(ctx, run, by.Key)
		if errors.Is(err, ErrNotFailed) {
			err = j.inspector.RunTask(q.Name, id)
		}
		return err
	}, j.inspector.RunTask, asynq.TaskStateActive, asynq.TaskStatePending, asynq.TaskStateCompleted)
}

// checkDue returns an ErrState for a delayed run that is not due. Its reference time is in the future. A sync that ran now would
// stamp its records with it.
func (j *Jobs) checkDue(q Queue, run tasks.RunID) error {
	info, err := j.inspector.GetTaskInfo(q.Name, run.String())
	if err == nil && !isDue(run, info.State) {
		return ErrState
	}
	return err
}

// changeTask changes a run, unless its state refuses that. A task that is no run of the job type's is left to asynq: its worker would
// refuse it.
func (j *Jobs) changeTask(q Queue, id string, change func(tasks.RunID) error, asynqs func(queue, id string) error, refuse ...asynq.TaskState) error {
	if q.Ranges {
		return ErrRange
	}
	run, err := tasks.ParseRunID(id)
	if err == nil && run.Job == q.Def.Name {
		err = change(run)
	} else {
		err = asynqs(q.Name, id)
	}
	switch {
	case notFound(err):
		return ErrNoJob
	case err == nil || errors.Is(err, ErrNoJob) || errors.Is(err, ErrEnded):
		return err
	}
	if errors.Is(err, ErrBusy) {
		return ErrState
	}
	// asynq does not say why it has failed.
	if info, failed := j.inspector.GetTaskInfo(q.Name, id); failed == nil && slices.Contains(refuse, info.State) {
		return ErrState
	}
	return err
}

// TaskIDs returns the IDs of the tasks in the queue in one of asynq's states, such as asynq.TaskStatePending.
func (j *Jobs) TaskIDs(ctx context.Context, q Queue, state asynq.TaskState) ([]string, error) {
	list := map[asynq.TaskState]func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		asynq.TaskStateActive: j.inspector.ListActiveTasks, asynq.TaskStatePending: j.inspector.ListPendingTasks,
		asynq.TaskStateScheduled: j.inspector.ListScheduledTasks, asynq.TaskStateRetry: j.inspector.ListRetryTasks,
		asynq.TaskStateArchived: j.inspector.ListArchivedTasks, asynq.TaskStateCompleted: j.inspector.ListCompletedTasks,
	}[state]
	var ids []string
	for page := 1; ctx.Err() == nil; page++ {
		infos, err := list(q.Name, asynq.PageSize(listPage), asynq.Page(page))
		if err != nil {
			return nil, fmt.Errorf("listing the tasks of %s: %w", q.Name, err)
		}
		for _, info := range infos {
			ids = append(ids, info.ID)
		}
		if len(infos) < listPage {
			return ids, nil
		}
	}
	return nil, context.Cause(ctx)
}
