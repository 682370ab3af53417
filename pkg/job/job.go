// Job types that are no syncs.

package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Job is a job type with a payload of type P and a result of type R.
//
// P is a struct. Each of its fields has a json tag with its name, and may have an `allowed` tag that says in words what it must
// be, for error messages and the description of the API. The tag `required:"true"` refuses a trigger without the field, and
// `options:"en,nl"` a text that is none of these. If *P has a method Validate() error, that sets defaults, and refuses a
// wrong payload with an error that says what was wrong and what is right. A client gets that as its answer. A job type with a
// schedule must take the payload {}: that is what a tick has.
type Job[P, R any] struct {
	// Name names the job type in URLs, settings, logs and metrics: lower-case words joined by hyphens.
	Name string
	// Title is the name in sentences, such as "Welcome mail". The default is made of the Name.
	Title string
	// Do does the work of one attempt. The result must encode to JSON. An error fails the attempt, unless it is made with Wait or
	// Permanent. When ctx ends, Do must return soon: the run was cancelled, takes too long, or goes on elsewhere. After a crash
	// the work is done again.
	Do func(ctx context.Context, run *Run[P]) (R, error)
	// Unique says which triggers share a run. By default a trigger is answered with the run that waits with an equal payload, if
	// there is one.
	Unique Unique
	// PerWorker is how many runs are active at the same time on one worker. The default is 1. By default WORKER_CONCURRENCY is the
	// sum over all job types; if it is set to less, it bounds all of them together.
	PerWorker int
	// Overall is how many runs are active at the same time over all workers. The default, 0, is no limit.
	Overall int
	// PayloadVersion is the version of P. It grows with each change of the fields, so that workers of the release before leave
	// runs that they do not understand to newer ones. The default is 1.
	PayloadVersion int
	Options
}

// Unique says which triggers share a run. The zero value means those whose payloads are equal, once their defaults are set, for as
// long as the run waits.
type Unique struct {
	never bool
	time  time.Duration // 0 for none
}

// NotUnique means that each trigger, and each tick of a schedule, has a run of its own.
var NotUnique = Unique{never: true}

// UniqueFor means that a trigger is also answered with the run of an equal payload that was accepted within the time before it,
// whatever has become of that run, even if it is not kept any more. The time is at most 30 days. Ticks of a schedule only share a
// run that waits, and a trigger with a delay always has a run of its own.
func UniqueFor(d time.Duration) Unique { return Unique{time: d} }

func (u Unique) policy() tasks.Unique {
	switch {
	case u.never:
		return tasks.Unique{Mode: tasks.UniqueNever}
	case u.time != 0:
		return tasks.Unique{Mode: tasks.UniqueFor, For: u.time}
	}
	return tasks.Unique{}
}

// New returns the job type. Type.Err says what is wrong with it.
func New[P, R any](j Job[P, R]) Type {
	def := j.define(j.Name, j.Title, func() tasks.Payload { return new(tasks.TypedPayload[P]) })
	def.PerWorker, def.Overall, def.PayloadVersion = j.PerWorker, j.Overall, j.PayloadVersion
	def.Unique = j.Unique.policy()
	t := jobtype.Type{Definition: def, Handler: j.handle}
	if j.Do == nil {
		t.Err = errors.New("its Do is missing")
	}
	return Type{t}
}

// handle implements jobtype.Handler.
func (j Job[P, R]) handle(ctx context.Context, a *jobtype.Attempt) (any, error) {
	payload, ok := a.Payload.(*tasks.TypedPayload[P])
	if !ok {
		return nil, jobtype.Permanent(fmt.Errorf("%s has the payload of another job type: %T", a.ID, a.Payload))
	}
	if a.Permit != nil {
		end, err := a.Permit(ctx)
		if err != nil {
			return nil, fmt.Errorf("waiting for a turn within the rate limit: %w", err)
		}
		defer end()
	}
	return j.Do(ctx, &Run[P]{Attempt: newAttempt(a), Payload: payload.Value, from: a})
}

// Run is one attempt at a run, as Job.Do sees it.
type Run[P any] struct {
	Attempt
	// Payload is valid, and has its defaults.
	Payload P

	from *jobtype.Attempt
}

// Checkpoint reads what Save stored last in an earlier attempt into the value that v points to. It returns false, and leaves the
// value as it is, if there is none.
func (r *Run[P]) Checkpoint(v any) (bool, error) {
	if r.from.Checkpoint == nil {
		return false, nil
	}
	if err := json.Unmarshal(r.from.Checkpoint, v); err != nil {
		return false, fmt.Errorf("reading the checkpoint of %s: %w", r.RunID, err)
	}
	return true, nil
}

// Save stores a checkpoint, which must encode to JSON, for the next attempt, and shows the progress in percent. An error means
// that Redis did not answer. If ctx has ended too, the attempt can save nothing any more, and must return.
func (r *Run[P]) Save(ctx context.Context, checkpoint any, percent int) error {
	data, err := json.Marshal(checkpoint)
	if err != nil {
		return fmt.Errorf("encoding a checkpoint of %s: %w", r.RunID, err)
	}
	return r.from.Save(ctx, data, min(max(percent, 0), 100))
}

// Stopping is closed when the worker shuts down. Do should then save a checkpoint and return any error within 7 s, at no cost: the
// run goes on at another worker. If it does not, ctx ends.
func (r *Run[P]) Stopping() <-chan struct{} { return r.from.Stop }

// Waiting tells people what the run waits for, such as "the mail server", and since when. It lasts a few seconds: call it about
// once a second, as long as Do waits.
func (r *Run[P]) Waiting(ctx context.Context, what string, since time.Time) {
	if r.from.Waiting != nil {
		r.from.Waiting(ctx, jobs.Wait{For: what, Since: since, Upstream: true})
	}
}
