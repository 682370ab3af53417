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
	// Writers is how many batches are written at the same time.
	Writers int
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
		name := strings.ToLower(run.Definition.Title)
		log.Info("Starting "+name+" job", "attempt", run.Attempt, "reference", run.ID.Reference.Format(tasks.TimestampLayout),
			"resumedAfter", resume.Processed)
		result, err := syncrun.Run{
			Noun: o.Noun, Store: store,
			Selection: syncrun.Selection{
				Full: payload.SyncType == tasks.SyncFull, Reference: run.ID.Reference, Freshness: o.Freshness,
			},
			BatchSize: batchSize, Writers: o.Writers, Patience: o.Patience,
			Resume: resume, Save: run.saveCheckpoint, Log: log,
		}.Do(ctx, run.Stop)
		switch {
		case errors.Is(err, syncrun.ErrStopped):
			return nil, ErrStopped
		case errors.Is(err, syncrun.ErrSuperseded):
			return nil, ErrSuperseded
		case err != nil:
			return nil, err
		}
		log.Info(run.Definition.Title+" job completed successfully", "usersProcessed", result.Processed,
			"usersUpdated", result.Updated, "errors", result.Errors, "duration", result.Elapsed.Milliseconds())
		return tasks.SyncResult{
			Success: true, UsersProcessed: result.Processed, UsersUpdated: result.Updated, Errors: result.Errors,
			Duration: result.Elapsed.Milliseconds(), Timestamp: time.Now().UTC().Format(tasks.TimestampLayout),
		}, nil
	}
}

// saveCheckpoint implements syncrun.Save.
func (r *Run) saveCheckpoint(ctx context.Context, c syncrun.Checkpoint) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding a checkpoint: %w", err)
	}
	err = r.Save(ctx, data, c.Progress())
	if errors.Is(err, ErrSuperseded) {
		return syncrun.ErrSuperseded
	}
	return err
}
