// Package syncjob makes a sync the handler of a job type. It translates between jobtype.Attempt and package syncrun: checkpoints
// and ranges are JSON on one side, and types on the other. It knows neither Redis nor MongoDB.
package syncjob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Options are the settings of a sync.
type Options struct {
	// Noun is the log's word for a record: "user".
	Noun string
	// Freshness is how old a stamp can be before its record is due again.
	Freshness time.Duration
	// BatchSize is how many records a batch has, unless the payload says it.
	BatchSize int
	// MaxBatch is how many records a batch has at most, whatever else says more. 0 is no limit.
	MaxBatch int
	// Exists reports whether the collection called Collection is there. If it is not, a run says so. It can be nil.
	Exists     func(ctx context.Context) (bool, error)
	Collection string
	// Work makes what an attempt does with each batch before it is written. With nil, records only get their stamp.
	Work func(*jobtype.Attempt) syncrun.Work
	// Writers is how many batches one attempt writes at the same time, and Workers on how many its Work works. 0 means as many as
	// Writers.
	Writers, Workers int
	// RangeSize is how many records a range has. A run of a larger collection is split.
	RangeSize int
	// KeepFailed says what the history has of the records that fail.
	KeepFailed syncrun.KeepFailed
	// RetryBudget is how long an attempt keeps trying while the store is unavailable.
	RetryBudget time.Duration
}

// New returns a handler that syncs the records of the store.
func New(store syncrun.Store, o Options) jobtype.Handler {
	slots := syncrun.NewSlots(o.Writers, o.Workers) // of ranges: a worker begins one while it finishes another
	return func(ctx context.Context, a *jobtype.Attempt) (any, error) {
		payload, ok := a.Payload.(*tasks.SyncPayload)
		if !ok {
			return nil, fmt.Errorf("%s has the payload of another job type: %T", a.ID, a.Payload)
		}
		batchSize := o.BatchSize
		if payload.BatchSize != nil {
			batchSize = *payload.BatchSize
		}
		if o.MaxBatch > 0 {
			batchSize = min(batchSize, o.MaxBatch)
		}
		var resume syncrun.Checkpoint
		if a.Checkpoint != nil {
			if err := json.Unmarshal(a.Checkpoint, &resume); err != nil {
				return nil, fmt.Errorf("reading the checkpoint of %s: %w", a.ID, err)
			}
		}
		full := payload.SyncType == tasks.SyncFull
		done := progress(a)
		done(resume)
		pass := syncrun.Pass{
			Noun: o.Noun, Store: store, Work: work(a, o),
			Selection: syncrun.Selection{
				Full: full, Reference: a.ID.Reference, Freshness: o.Freshness,
			},
			BatchSize: batchSize, Writers: o.Writers, Workers: o.Workers, RetryBudget: o.RetryBudget, Stop: a.Stop,
			Resume: resume, Save: save(a, full, resume, done), KeepFailed: o.KeepFailed, Observe: a.Observe, Waiting: waiting(a), Log: a.Log.With("syncType", payload.SyncType),
		}
		if a.Range != nil {
			pass.Slots, pass.Exhausted = slots, a.Exhausted
			return syncRange(ctx, a, pass, done)
		}
		return syncAll(ctx, a, pass, o, done)
	}
}

// progress returns a function that says what the run, or the range, has done by now. The checkpoint of a split run has its progress
// only, which changes nothing.
func progress(a *jobtype.Attempt) func(syncrun.Checkpoint) {
	told := 0
	return func(c syncrun.Checkpoint) {
		if c.Processed > 0 {
			count(a, c)
		}
		if len(c.Failed) > told && a.Failed != nil { // the list only grows
			told = len(c.Failed)
			a.Failed(failed(c.Failed))
		}
	}
}

// failed returns records that failed as the run's entry in the history has them.
func failed(records []syncrun.FailedRecord) []jobs.FailedRecord {
	list := make([]jobs.FailedRecord, len(records))
	for i, r := range records {
		list[i] = jobs.FailedRecord(r)
	}
	return list
}

func count(a *jobtype.Attempt, c syncrun.Checkpoint) {
	if a.Count != nil {
		a.Count(c.Processed, c.Updated, c.Errors)
	}
}

// work returns what the attempt does with each batch, within the rate limit.
func work(a *jobtype.Attempt, o Options) syncrun.Work {
	var w syncrun.Work = syncrun.Stamping{}
	if o.Work != nil {
		w = o.Work(a)
	}
	if a.Permit == nil || a.Definition.Rate.Calls == 0 {
		return w
	}
	return permitted{w, a.Permit}
}

// permitted is a Work that waits for its turn within the rate limit.
type permitted struct {
	work   syncrun.Work
	permit func(context.Context) (end func(), err error)
}

// Do implements syncrun.Work.
func (p permitted) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	end, err := p.permit(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for a turn within the rate limit: %w", err)
	}
	defer end()
	return p.work.Do(ctx, batch)
}

// failure returns the error of an attempt, as the worker understands it.
func failure(err error) error {
	wait := new(syncrun.WaitError)
	switch {
	case errors.As(err, &wait):
		return &jobtype.WaitError{Err: err, After: wait.After}
	case errors.Is(err, syncrun.ErrRangesFailed):
		return jobtype.Permanent(err)
	}
	return err
}

// waiting returns a syncrun.Waiting that tells people.
func waiting(a *jobtype.Attempt) syncrun.Waiting {
	if a.Waiting == nil {
		return nil
	}
	return func(ctx context.Context, w syncrun.Wait) {
		a.Waiting(ctx, jobs.Wait{For: w.For, Since: w.Since, Upstream: w.Upstream, Slow: w.Slow})
	}
}

// save returns a syncrun.Save that stores the checkpoint as JSON, and says what is done, and of how much.
func save(a *jobtype.Attempt, full bool, resume syncrun.Checkpoint, done func(syncrun.Checkpoint)) syncrun.Save {
	counted := resume.Processed > 0
	return func(ctx context.Context, c syncrun.Checkpoint, progress int) error {
		done(c)
		if counted && c.Processed == 0 {
			count(a, c) // the next attempt begins at the beginning
		}
		counted = c.Processed > 0
		// A range of a full run only knows how long it was made. The run has counted its records.
		if a.Total != nil && (a.Range == nil || !full) {
			a.Total(c.Total)
		}
		data, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("encoding a checkpoint: %w", err)
		}
		return a.Save(ctx, data, progress)
	}
}

// syncAll makes an attempt at a run.
func syncAll(
	ctx context.Context, a *jobtype.Attempt, pass syncrun.Pass, o Options, done func(syncrun.Checkpoint),
) (any, error) {
	pass.Log.Info("Starting "+strings.ToLower(a.Definition.Title)+" job", "attempt", a.Number,
		"reference", a.ID.Reference.Format(tasks.TimestampLayout), "resumedAfter", pass.Resume.Processed)
	result, err := syncrun.Run{Pass: pass, RangeSize: o.RangeSize, Ranges: ranges{a.ID, a.Ranges}}.Do(ctx)
	end := syncrun.Checkpoint{Processed: result.Processed, Updated: result.Updated, Errors: result.Errors, Failed: result.Failed}
	done(end)
	if err != nil {
		return nil, failure(err)
	}
	count(a, end) // also that there were none
	pass.Log.Info(a.Definition.Title+" job completed successfully", logged(result.Processed, result.Updated, result.Errors, result.Elapsed)...)
	return tasks.SyncResult{
		Success: true, UsersProcessed: result.Processed, UsersUpdated: result.Updated, Errors: result.Errors,
		Duration: result.Elapsed.Milliseconds(), Timestamp: time.Now().UTC().Format(tasks.TimestampLayout),
		Warnings: warnings(ctx, pass.Log, result, o),
	}, nil
}

// warnings returns what is odd about a run that has succeeded.
func warnings(ctx context.Context, log *slog.Logger, result syncrun.Result, o Options) []string {
	if result.Processed > 0 || o.Exists == nil {
		return nil
	}
	exists, err := o.Exists(ctx)
	if err != nil {
		log.Debug("Could not look whether the collection exists", "error", err)
		return nil
	}
	if exists {
		return nil
	}
	log.Warn("The collection does not exist", "collection", o.Collection)
	return []string{"the collection " + o.Collection + " does not exist; see MONGODB_DATABASE"}
}

// syncRange makes an attempt at a range. The result is the range's last checkpoint, which the run adds up.
func syncRange(ctx context.Context, a *jobtype.Attempt, pass syncrun.Pass, done func(syncrun.Checkpoint)) (any, error) {
	var err error
	if pass.Range, err = decodeRange(a.Range); err != nil {
		return nil, jobtype.Permanent(err)
	}
	pass.Log.Info("Starting range", "attempt", a.Number, "resumedAfter", pass.Resume.Processed)
	end, err := pass.Do(ctx)
	if err != nil {
		return nil, failure(err)
	}
	done(end)
	count(a, end)    // also that there were none
	end.Failed = nil // the attempt has them
	pass.Log.Info("Range completed", logged(end.Processed, end.Updated, end.Errors, end.Elapsed)...)
	return end, nil
}

// logged returns the log's attributes for what was done.
func logged(processed, updated, failed int64, elapsed time.Duration) []any {
	return []any{
		slog.Int64("usersProcessed", processed), slog.Int64("usersUpdated", updated), slog.Int64("errors", failed),
		slog.Int64("duration", elapsed.Milliseconds()),
	}
}

// ranges implements syncrun.Ranges with the Ranges of an attempt.
type ranges struct {
	id     tasks.RunID
	ranges jobtype.Ranges
}

// Split implements syncrun.Ranges.
func (r ranges) Split(ctx context.Context) (syncrun.Split, error) {
	encoded, err := r.ranges.Split(ctx)
	if err != nil {
		return syncrun.Split{}, err
	}
	split := syncrun.Split{
		Ranges: encoded.Ranges, Complete: encoded.Complete, Ended: encoded.Ended, Progress: encoded.Progress,
	}
	if encoded.Ranges > 0 {
		split.Last, err = decodeRange(encoded.Last)
	}
	return split, err
}

// Add implements syncrun.Ranges.
func (r ranges) Add(ctx context.Context, index int, next syncrun.Range, last bool) error {
	spec, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encoding range %d of run %s: %w", index, r.id, err)
	}
	return r.ranges.Add(ctx, index, spec, last)
}

// Ended implements syncrun.Ranges.
func (r ranges) Ended() <-chan struct{} { return r.ranges.Ended() }

// Requeue implements syncrun.Ranges.
func (r ranges) Requeue(ctx context.Context) error { return r.ranges.Requeue(ctx) }

// Waiting implements syncrun.Ranges.
func (r ranges) Waiting(ctx context.Context) (until time.Time, err error) {
	goesOn := errors.New("a range goes on")
	err = r.ranges.Each(ctx, func(_ int, info jobs.RangeInfo) error {
		switch {
		case info.Ended:
		case info.Until.IsZero():
			return goesOn
		case until.IsZero() || info.Until.Before(until):
			until = info.Until
		}
		return nil
	})
	if errors.Is(err, goesOn) {
		return time.Time{}, nil
	}
	return until, err
}

// Results implements syncrun.Ranges.
func (r ranges) Results(ctx context.Context, f func(index int, result syncrun.RangeResult)) error {
	return r.ranges.Each(ctx, func(index int, info jobs.RangeInfo) error {
		result := syncrun.RangeResult{Failure: info.Failure}
		if len(info.Checkpoint) > 0 {
			if err := json.Unmarshal(info.Checkpoint, &result.Checkpoint); err != nil {
				return fmt.Errorf("reading the checkpoint of range %d of run %s: %w", index, r.id, err)
			}
		}
		f(index, result)
		return nil
	})
}

// Discard implements syncrun.Ranges.
func (r ranges) Discard(ctx context.Context) error { return r.ranges.Discard(ctx) }

func decodeRange(spec []byte) (r syncrun.Range, err error) {
	if err := json.Unmarshal(spec, &r); err != nil {
		return r, fmt.Errorf("reading a range: %w", err)
	}
	return r, nil
}
