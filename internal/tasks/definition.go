// What the system knows of a job type, and the list of all job types.

package tasks

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// The defaults of a Definition. All but DefaultMaxDuration are the values of the Bull system that this product replaces.
const (
	// DefaultAttempts is how many attempts a run has before it fails.
	DefaultAttempts = 3
	// DefaultBackoff is the wait before the first retry.
	DefaultBackoff = 5 * time.Second
	// DefaultBackoffFactor multiplies the wait for each further retry: 5 s, then 25 s.
	DefaultBackoffFactor = 5.0
	// DefaultKeepCompleted is how many completed runs of a job type are kept.
	DefaultKeepCompleted = 10
	// DefaultKeepFailed is how many failed runs of a job type are kept.
	DefaultKeepFailed = 20
	// DefaultMaxDuration ends a run that never ends by itself. Bull had no such limit. asynq's default of 30 minutes would kill
	// long syncs.
	DefaultMaxDuration = 6 * time.Hour
)

// Payload is what a trigger's body and a task carry. Implementations are pointers to structs with JSON fields. A field's
// `allowed` tag says in words what the field must be, for error messages (see Decode) and the description of the API. A field can
// also have the tags `required:"true"` and `options:"a,b"`, see Field.
type Payload interface {
	// UniqueKey says which runs of the job type are the same work: of those with the same key at most one waits, unless
	// Definition.Unique says otherwise. A job type whose runs are all the same work returns "". See HashedKey, too.
	UniqueKey() string
	// Validate sets defaults, and returns a *FieldError for the first wrong value.
	Validate() error
}

// Schedule says when the scheduler enqueues runs. At most one of Every and Cron is set. The zero value means never.
type Schedule struct {
	// Every is an interval, aligned to the clock. Validate says which ones are allowed.
	Every time.Duration
	// Cron is a five-field cron expression, in UTC.
	Cron string
}

// Rate is a limit of calls: no window of the length Per has more than Calls of them. The zero value is no limit.
type Rate struct {
	Calls int
	Per   time.Duration
}

// Definition describes a job type. Routes, schedule, retries, retention, the API's description and the dashboard follow from
// it. A zero value of a field that has a default means the default.
type Definition struct {
	// Name names the job type in URLs, settings and logs, and its asynq queue and task type. It must be lower-case words
	// joined by hyphens, and not "ranges".
	Name string
	// Title is the name in sentences, such as "User sync".
	Title string
	// NewPayload returns an empty payload to decode into. If the job type is scheduled, "{}" must decode into a valid one,
	// because a scheduled run carries that.
	NewPayload func() Payload
	// PayloadVersion is the version of the payload. It grows with each change of the payload's fields. The default is 1.
	PayloadVersion int
	// Schedule says when the scheduler enqueues runs.
	Schedule Schedule
	// Unique says which triggers share a run. By default those with the same unique key do, while the run waits.
	Unique Unique
	// PerWorker is how many runs are active at the same time on one worker. The default is 1.
	PerWorker int
	// Overall is how many runs are active at the same time over all workers. The default, 0, is no limit.
	Overall int
	// Rate limits the calls of the handler over all workers. A sync calls once for each batch.
	Rate Rate
	// Endpoint is true for a sync without work of its own: a setting can give its work to an endpoint.
	Endpoint bool
	// Attempts is how many attempts a run has, at least 1. The default is DefaultAttempts.
	Attempts int
	// Backoff is the wait before the first retry, at least a second. The default is DefaultBackoff.
	Backoff time.Duration
	// BackoffFactor multiplies the wait for each further retry. It is at least 1, and its default is DefaultBackoffFactor.
	BackoffFactor float64
	// KeepCompleted and KeepFailed are how many of the newest completed and failed runs are kept. The defaults are
	// DefaultKeepCompleted and DefaultKeepFailed. Only the settings can make them 0.
	KeepCompleted, KeepFailed int
	// MaxDuration is how long a run may take, from its first start and over all its attempts. The default is
	// DefaultMaxDuration.
	MaxDuration time.Duration

	// own says which of the fields with a default the author of the definition has set.
	own own
	// namespace is the namespace of the definition's Registry.
	namespace Namespace
}

// Queue returns the name of the queue for the runs of the job type.
func (d Definition) Queue() string { return d.namespace.Queue(d.Name) }

// allName stands for all job types in requests.
const allName = "all"

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// own says which of the fields with a default a Definition sets itself.
type own struct {
	attempts, backoff, backoffFactor, keepCompleted, keepFailed, maxDuration bool
}

// Defaults are values for the fields that a Definition does not set itself. A nil one changes nothing.
type Defaults struct {
	Attempts                  *int
	Backoff                   *time.Duration
	BackoffFactor             *float64
	KeepCompleted, KeepFailed *int
	MaxDuration               *time.Duration
}

// SetDefaults sets the fields that the Definition does not set itself. What it does set itself stays.
func (d *Definition) SetDefaults(v Defaults) {
	setDefault(&d.Attempts, d.own.attempts, v.Attempts)
	setDefault(&d.Backoff, d.own.backoff, v.Backoff)
	setDefault(&d.BackoffFactor, d.own.backoffFactor, v.BackoffFactor)
	setDefault(&d.KeepCompleted, d.own.keepCompleted, v.KeepCompleted)
	setDefault(&d.KeepFailed, d.own.keepFailed, v.KeepFailed)
	setDefault(&d.MaxDuration, d.own.maxDuration, v.MaxDuration)
}

func setDefault[T any](field *T, own bool, value *T) {
	if value != nil && !own {
		*field = *value
	}
}

// withDefaults returns d with the defaults in the place of zero values.
func (d Definition) withDefaults() Definition {
	d.own = own{
		attempts: d.Attempts != 0, backoff: d.Backoff != 0, backoffFactor: d.BackoffFactor != 0,
		keepCompleted: d.KeepCompleted != 0, keepFailed: d.KeepFailed != 0, maxDuration: d.MaxDuration != 0,
	}
	if d.PerWorker == 0 {
		d.PerWorker = 1
	}
	attempts, backoff, factor := DefaultAttempts, DefaultBackoff, DefaultBackoffFactor
	completed, failed, limit := DefaultKeepCompleted, DefaultKeepFailed, DefaultMaxDuration
	d.SetDefaults(Defaults{&attempts, &backoff, &factor, &completed, &failed, &limit})
	return d
}

// RetryDelay returns the wait after the given number of failed attempts (1 or more).
func (d Definition) RetryDelay(failed int) time.Duration {
	delay := float64(d.Backoff)
	for range failed - 1 {
		delay *= d.BackoffFactor
	}
	return time.Duration(min(delay, float64(24*time.Hour)))
}

// Registry is the set of job types that a system knows, in a fixed order. It never changes.
type Registry struct {
	definitions []Definition
	namespace   Namespace
}

// NewRegistry returns a Registry of the definitions, with the defaults for the fields that they leave out. Its error names the
// definition, and says what is wrong with it.
func NewRegistry(definitions ...Definition) (*Registry, error) {
	r := &Registry{}
	for _, d := range definitions {
		switch {
		case !namePattern.MatchString(d.Name):
			return nil, fmt.Errorf("job type %q: its name must be lower-case words joined by hyphens", d.Name)
		case d.Name == allName:
			return nil, fmt.Errorf("job type %q: its name must not be %q, which means all job types", d.Name, allName)
		case d.Name == rangesName: // in a namespace, its queue would be the one of the ranges of the job type of that name
			return nil, fmt.Errorf("job type %q: its name must not be %q", d.Name, rangesName)
		case d.Title == "":
			return nil, fmt.Errorf("job type %q has no title", d.Name)
		case d.NewPayload == nil:
			return nil, fmt.Errorf("job type %q has no payload", d.Name)
		case d.PerWorker < 0 || d.Overall < 0:
			return nil, fmt.Errorf("job type %q: its numbers of active runs must not be negative", d.Name)
		}
		if r := d.Rate; r != (Rate{}) && (r.Calls < 1 || r.Per < time.Millisecond || r.Per%time.Millisecond != 0) {
			return nil, fmt.Errorf("job type %q: its rate must be of at least 1 call, per whole milliseconds, was %d per %s", d.Name, r.Calls, r.Per)
		}
		if err := checkFields(d.NewPayload()); err != nil {
			return nil, fmt.Errorf("job type %q: %w", d.Name, err)
		}
		for _, err := range []error{checkReserved(d.NewPayload()), d.Unique.validate()} {
			if err != nil {
				return nil, fmt.Errorf("job type %q: %w", d.Name, err)
			}
		}
		if d.Schedule.Enabled() {
			if err := d.Schedule.Validate(); err != nil {
				return nil, fmt.Errorf("job type %q: %w", d.Name, err)
			}
			if _, err := d.ScheduledPayload(); err != nil {
				return nil, fmt.Errorf("job type %q has a schedule, but {} is no valid payload: %w", d.Name, errors.Unwrap(err))
			}
		}
		if _, taken := r.Lookup(d.Name); taken {
			return nil, fmt.Errorf("job type %q is defined twice", d.Name)
		}
		r.definitions = append(r.definitions, d.withDefaults())
	}
	return r, nil
}

// Lookup returns the definition with the name, and whether there is one.
func (r *Registry) Lookup(name string) (Definition, bool) {
	i := slices.IndexFunc(r.definitions, func(d Definition) bool { return d.Name == name })
	if i < 0 {
		return Definition{}, false
	}
	return r.definitions[i], true
}

// All returns every definition, in the order of NewRegistry.
func (r *Registry) All() []Definition { return slices.Clone(r.definitions) }

// Names returns the name of every job type, in the order of NewRegistry.
func (r *Registry) Names() []string {
	names := make([]string, len(r.definitions))
	for i, d := range r.definitions {
		names[i] = d.Name
	}
	return names
}

// Resolve returns a copy of the Registry with change applied to each definition. With this the settings change what the
// definitions say.
func (r *Registry) Resolve(change func(*Definition)) *Registry {
	resolved := &Registry{definitions: slices.Clone(r.definitions), namespace: r.namespace}
	for i := range resolved.definitions {
		change(&resolved.definitions[i])
	}
	return resolved
}

// In returns a copy of the Registry, and so of its definitions, in the namespace. The namespace must be valid.
func (r *Registry) In(namespace Namespace) *Registry {
	copied := r.Resolve(func(d *Definition) { d.namespace = namespace })
	copied.namespace = namespace
	return copied
}

// Namespace returns the namespace of the job types.
func (r *Registry) Namespace() Namespace { return r.namespace }
