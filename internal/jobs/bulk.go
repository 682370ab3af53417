// Retrying and cancelling many runs at once, one after another. Each run is changed as it is when it is changed alone.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// bulkPage is how many runs one command lists.
	bulkPage = 500
	// leftTimeout bounds the counting of what is left when the time is up.
	leftTimeout = 2 * time.Second
)

// Bulk says how far a change of many runs got.
type Bulk struct {
	// Changed is how many runs were changed.
	Changed int
	// Left is how many were still there to be changed when the time was up. It is 0 if the change is complete.
	Left int
}

// Add adds what was done to the runs of another job type.
func (s *Bulk) Add(other Bulk) {
	s.Changed += other.Changed
	s.Left += other.Left
}

// selection is the runs of a job type that are to be changed, in one of asynq's lists.
type selection struct {
	def  tasks.Definition
	name string
	list func(queue string, opts ...asynq.ListOption) ([]*asynq.TaskInfo, error)
	want func(tasks.RunID, *asynq.TaskInfo) bool
}

// RetryFailed retries all runs of the job type that had failed when it was called. A cancelled run is not one of them. It records
// who has retried them: the name of an API key, or "". A deadline of ctx is no error: Left then counts the others. With an error
// RetryFailed still returns how many runs it has retried. It is safe to repeat.
func (j *Jobs) RetryFailed(ctx context.Context, def tasks.Definition, key string) (Bulk, error) {
	start := time.Now()
	failed := selection{def, "failed", j.inspector.ListArchivedTasks, func(_ tasks.RunID, t *asynq.TaskInfo) bool {
		return t.LastErr != cancelledError && !t.LastFailedAt.After(start)
	}}
	return j.changeInBulk(ctx, failed, func(id tasks.RunID) (bool, error) {
		err := j.Retry(ctx, id, key)
		if errors.Is(err, ErrNoJob) || errors.Is(err, ErrNotFailed) { // another client was faster
			return false, nil
		}
		return err == nil, err
	})
}

// CancelWaiting removes all runs of the job type that were waiting when it was called. Delayed runs stay, and so does a run that
// begins meanwhile. The history says of each who has cancelled it. It ends as RetryFailed does.
func (j *Jobs) CancelWaiting(ctx context.Context, def tasks.Definition, by Trigger) (Bulk, error) {
	start := time.Now()
	waiting := selection{def, "waiting", j.inspector.ListPendingTasks, func(id tasks.RunID, _ *asynq.TaskInfo) bool {
		return !id.Reference.After(start)
	}}
	return j.changeInBulk(ctx, waiting, func(id tasks.RunID) (bool, error) {
		// The list can be old by now, and an active run is not to be cancelled.
		_, info, err := j.lookUp(ctx, id)
		if errors.Is(err, ErrNoJob) || err == nil && info.State != asynq.TaskStatePending {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return j.removeWaiting(ctx, def, id, info, by)
	})
}

// changeInBulk changes the selected runs. change reports whether it has changed one.
func (j *Jobs) changeInBulk(ctx context.Context, s selection, change func(tasks.RunID) (bool, error)) (done Bulk, err error) {
	for page := 1; ; {
		runs, more, err := s.page(page)
		if err != nil {
			return done, err
		}
		moved := false
		for _, id := range runs {
			if ctx.Err() != nil {
				return j.outOfTime(ctx, s, done)
			}
			changed, err := change(id)
			if err != nil && ctx.Err() != nil {
				return j.outOfTime(ctx, s, done)
			}
			if err != nil {
				return done, err
			}
			if changed {
				done.Changed++
				moved = true
			}
		}
		switch {
		case !more:
			return done, nil
		case !moved: // otherwise the rest has moved into this page
			page++
		}
		if ctx.Err() != nil {
			return j.outOfTime(ctx, s, done)
		}
	}
}

// outOfTime counts the runs that are left when ctx has ended.
func (j *Jobs) outOfTime(ctx context.Context, s selection, done Bulk) (Bulk, error) {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return done, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leftTimeout)
	defer cancel()
	for page := 1; ctx.Err() == nil; page++ {
		runs, more, err := s.page(page)
		done.Left += len(runs)
		if err != nil || !more {
			return done, err
		}
	}
	return done, nil // there are at least that many
}

// page returns the selected runs of a page of asynq's list, and whether there are more pages.
func (s selection) page(page int) (runs []tasks.RunID, more bool, err error) {
	list, err := s.list(s.def.Queue(), asynq.PageSize(bulkPage), asynq.Page(page))
	if notFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("listing %s runs of %s: %w", s.name, s.def.Name, err)
	}
	for _, info := range list {
		if id, err := tasks.ParseRunID(info.ID); err == nil && s.want(id, info) { // otherwise it is no run of ours
			runs = append(runs, id)
		}
	}
	return runs, len(list) == bulkPage, nil
}
