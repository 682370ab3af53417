// Sections trigger a sync, wait for its end, and check that it did all of its work.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// runPoll is the pause between two looks at a run. The time that is measured does not depend on it, unless looking takes more of
	// the processor than it must.
	runPoll = 100 * time.Millisecond
	// A run may take runBase, and runPerUser for each user on top, which is a hundred users a second.
	runBase    = time.Minute
	runPerUser = 10 * time.Millisecond
)

// The records that a sync visits.
var (
	full        = &tasks.SyncPayload{SyncType: tasks.SyncFull}
	incremental = &tasks.SyncPayload{SyncType: tasks.SyncIncremental}
)

// syncOn starts fresh workers, lets them synchronise all n users once, and returns how long that took from the trigger
// to the end of the run. With the workers still there it then calls look, unless that is nil.
func (b *bench) syncOn(ctx context.Context, workers []spec, n int, payload *tasks.SyncPayload, look func([]*procs.Process) error) (took time.Duration, err error) {
	err = b.with(ctx, workers, func(ctx context.Context, crew []*procs.Process) error {
		started := time.Now()
		accepted, err := b.jobs.Trigger(ctx, b.userSync, payload)
		if err != nil {
			return err
		}
		if accepted.Coalesced {
			return fmt.Errorf("run %s waited already", accepted.ID)
		}
		ended, err := b.awaitRun(ctx, accepted.ID.String(), n)
		if err != nil {
			return err
		}
		took = ended.Sub(started)
		if look != nil {
			return look(crew)
		}
		return nil
	})
	return took, err
}

// awaitRun waits for the end of a run that has to update n users, and returns when that was.
func (b *bench) awaitRun(ctx context.Context, id string, n int) (time.Time, error) {
	limit := runBase + time.Duration(n)*runPerUser
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("run %s has not ended within %v", id, limit))
	defer cancel()
	ticker := time.NewTicker(runPoll)
	defer ticker.Stop()
	for {
		info, err := b.inspector.GetTaskInfo(b.userSync.Name, id)
		if err != nil {
			return time.Time{}, fmt.Errorf("looking up run %s: %w", id, err)
		}
		switch info.State {
		case asynq.TaskStateCompleted:
			return checkResult(info.Result, n)
		case asynq.TaskStateRetry, asynq.TaskStateArchived:
			return time.Time{}, fmt.Errorf("run %s has failed: %s", id, info.LastErr)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

// checkResult returns when a run ended that has updated n users.
func checkResult(data []byte, n int) (time.Time, error) {
	var result tasks.SyncResult
	if err := json.Unmarshal(data, &result); err != nil {
		return time.Time{}, fmt.Errorf("reading a run's result: %w", err)
	}
	if result.UsersUpdated != int64(n) || result.Errors != 0 {
		return time.Time{}, fmt.Errorf("a run updated %d users of %d, with %d errors", result.UsersUpdated, n, result.Errors)
	}
	ended, err := time.Parse(tasks.TimestampLayout, result.Timestamp)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading when a run ended: %w", err)
	}
	return ended, nil
}

// perSecond returns how many of n there are in a second, when all took so long.
func perSecond(n int, took time.Duration) float64 { return float64(n) / took.Seconds() }

// pause waits for so long. If ctx ends before, it returns ctx's cause.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
