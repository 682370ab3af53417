package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// SyncOptions are the settings of a synchronisation.
type SyncOptions struct {
	// Noun is what one record is called in the log: "user".
	Noun string
	// Freshness is how old a stamp may be before an incremental run visits the record again.
	Freshness time.Duration
	// BatchSize is how many records make one unit of work, where the payload does not say.
	BatchSize int
	// Work is done with each batch before it is written.
	Work syncrun.Work
	// Writers is how many batches one worker works on at the same time in one run or range.
	Writers int
	// RangeSize is how many records a range has, when a run is large enough to be cut.
	RangeSize int
	// Patience is how long an attempt waits for a store that is gone.
	Patience time.Duration
}

// NewSync returns the processor that brings the records of the store up to date.
func NewSync(store syncrun.Store, o SyncOptions) Processor {
	return func(ctx context.Context, run *Run) (any, error) {
		payload, ok := run.Payload.(*tasks.SyncPayload)
		if !ok {
			return nil, fmt.Errorf("%s has the payload of another job type: %T", run.ID, run.Payload)
		}
		batchSize := o.BatchSize
		if payload.BatchSize != nil {
			batchSize = *payload.BatchSize
		}
		log := run.Log.With("syncType", payload.SyncType)
		var resume syncrun.Checkpoint
		if run.Checkpoint != nil {
			if err := json.Unmarshal(run.Checkpoint, &resume); err != nil {
				return nil, fmt.Errorf("reading the checkpoint of %s: %w", run.ID, err)
			}
		}
		pass := syncrun.Pass{
			Noun: o.Noun, Store: store, Work: o.Work,
			Selection: syncrun.Selection{
				Full: payload.SyncType == tasks.SyncFull, Reference: run.ID.Reference, Freshness: o.Freshness,
			},
			BatchSize: batchSize, Writers: o.Writers, Patience: o.Patience,
			Resume: resume, Save: run.saveCheckpoint, Observe: run.observe, Log: log,
		}
		if run.Range != nil {
			return syncRange(ctx, run, pass)
		}
		log.Info("Starting "+strings.ToLower(run.Definition.Title)+" job", "attempt", run.Attempt,
			"reference", run.ID.Reference.Format(tasks.TimestampLayout), "resumedAfter", resume.Processed)
		result, err := syncrun.Run{Pass: pass, RangeSize: o.RangeSize, Ranges: run.ranges}.Do(ctx, run.Stop)
		if err != nil {
			return nil, processorError(err)
		}
		log.Info(run.Definition.Title+" job completed successfully", "usersProcessed", result.Processed,
			"usersUpdated", result.Updated, "errors", result.Errors, "duration", result.Elapsed.Milliseconds())
		return tasks.SyncResult{
			Success: true, UsersProcessed: result.Processed, UsersUpdated: result.Updated, Errors: result.Errors,
			Duration: result.Elapsed.Milliseconds(), Timestamp: time.Now().UTC().Format(tasks.TimestampLayout),
		}, nil
	}
}

// syncRange works on one range of a run. Its result is its last checkpoint, which the run adds up.
func syncRange(ctx context.Context, run *Run, pass syncrun.Pass) (any, error) {
	var err error
	if pass.Range, err = decodeRange(run.Range); err != nil {
		return nil, Permanent(err)
	}
	pass.Log.Info("Starting range", "attempt", run.Attempt, "resumedAfter", pass.Resume.Processed)
	done, err := pass.Do(ctx, run.Stop)
	if err != nil {
		return nil, processorError(err)
	}
	pass.Log.Info("Range completed", "usersProcessed", done.Processed, "usersUpdated", done.Updated, "errors", done.Errors,
		"duration", done.Elapsed.Milliseconds())
	return done, nil
}

// processorError says in this package's words how an attempt has ended.
func processorError(err error) error {
	switch {
	case errors.Is(err, syncrun.ErrStopped):
		return ErrStopped
	case errors.Is(err, syncrun.ErrSuperseded):
		return ErrSuperseded
	case errors.Is(err, syncrun.ErrRangesFailed):
		return Permanent(err)
	}
	return err
}

// saveCheckpoint implements syncrun.Save.
func (r *Run) saveCheckpoint(ctx context.Context, c syncrun.Checkpoint, progress int) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding a checkpoint: %w", err)
	}
	err = r.Save(ctx, data, progress)
	if errors.Is(err, ErrSuperseded) {
		return syncrun.ErrSuperseded
	}
	return err
}
