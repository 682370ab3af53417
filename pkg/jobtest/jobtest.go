// Package jobtest calls a Job's Do or a Sync's Update in a test, as a worker would, but without Redis and MongoDB. It takes
// microseconds, checks what a worker would check, and returns what would be stored.
package jobtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// With says what the attempt finds. A zero value means the first attempt at a new run.
type With struct {
	// RunID names the run. The default is one of a new run at the reference time.
	RunID string
	// Number counts the attempts from 1.
	Number int
	// Retries counts how many times the run was retried by hand.
	Retries int
	// Checkpoint is what an earlier attempt at a Job saved last. nil means nothing.
	Checkpoint any
	// SyncType is job.Full or job.Incremental, the default, for a Sync.
	SyncType string
	// Reference is the run's reference time. The default is now.
	Reference time.Time
	// Stopping is closed to tell a Job that the worker shuts down.
	Stopping <-chan struct{}
	// Log is the logger that the function gets. The default logs nothing.
	Log *slog.Logger
}

// Done is what a Job has done.
type Done[P, R any] struct {
	// Result is what Do returned, after its way through JSON.
	Result R
	// Saved is what was saved, in this order.
	Saved []Saved
	// Payload is the payload as Do got it, with its defaults.
	Payload P
}

// Saved is a call of Save.
type Saved struct {
	// Checkpoint is JSON.
	Checkpoint json.RawMessage
	// Percent is the progress.
	Percent int
}

// Do calls j.Do with the payload, after its way through JSON and its check. It returns the error of Do, or what is wrong with the
// job type, the payload or the result. Done has what was saved even then.
func Do[P, R any](ctx context.Context, j job.Job[P, R], payload P, with With) (Done[P, R], error) {
	var done Done[P, R]
	t, def, err := describe(job.New(j))
	if err != nil {
		return done, err
	}
	data, err := def.EncodePayload(&tasks.TypedPayload[P]{Value: payload})
	if err != nil {
		return done, err
	}
	decoded, err := def.DecodePayload(data)
	if err != nil {
		return done, fmt.Errorf("the payload of %s: %w", def.Name, err)
	}
	if typed, ok := decoded.(*tasks.TypedPayload[P]); ok {
		done.Payload = typed.Value
	}
	a, err := with.attempt(def, decoded)
	if err != nil {
		return done, err
	}
	a.Save = func(_ context.Context, checkpoint []byte, percent int) error {
		done.Saved = append(done.Saved, Saved{checkpoint, percent})
		return nil
	}
	result, err := t.Handler(ctx, a)
	if err != nil {
		return done, err
	}
	if data, err = json.Marshal(result); err == nil {
		err = json.Unmarshal(data, &done.Result)
	}
	if err != nil {
		return done, fmt.Errorf("the result of %s: %w", def.Name, err)
	}
	return done, nil
}

// describe returns a job type, and its definition with its defaults.
func describe(public job.Type) (jobtype.Type, tasks.Definition, error) {
	t := jobtype.Of(public)
	registry, err := jobtype.Registry([]jobtype.Type{t})
	if err != nil {
		return t, tasks.Definition{}, err
	}
	return t, registry.All()[0], nil
}

// attempt returns what the function is called with.
func (w With) attempt(def tasks.Definition, payload tasks.Payload) (*jobtype.Attempt, error) {
	a := &jobtype.Attempt{
		Definition: def, Payload: payload, Number: max(1, w.Number), Retries: w.Retries, Stop: w.Stopping, Log: w.Log,
		Save: func(context.Context, []byte, int) error { return nil },
	}
	if w.Reference.IsZero() {
		w.Reference = time.Now()
	}
	a.ID = tasks.TriggerID(def.Name, w.Reference)
	if w.RunID != "" {
		var err error
		if a.ID, err = tasks.ParseRunID(w.RunID); err != nil {
			return nil, err
		}
	}
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	if w.Checkpoint != nil {
		var err error
		if a.Checkpoint, err = json.Marshal(w.Checkpoint); err != nil {
			return nil, fmt.Errorf("encoding the checkpoint: %w", err)
		}
	}
	return a, nil
}

// Waits reports whether an error is one of job.Wait, and how long to wait.
func Waits(err error) (after time.Duration, ok bool) {
	wait := new(jobtype.WaitError)
	if !errors.As(err, &wait) {
		return 0, false
	}
	return wait.After, true
}

// Halves reports whether an error is one of job.Halve, and how often the same batch is passed.
func Halves(err error) (tries int, ok bool) {
	halve := new(syncrun.HalveError)
	if !errors.As(err, &halve) {
		return 0, false
	}
	return halve.Tries, true
}

// IsPermanent reports whether an error is one of job.Permanent.
func IsPermanent(err error) bool { return jobtype.IsPermanent(err) }
