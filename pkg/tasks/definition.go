package tasks

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// The defaults of a Definition. They are those of the Bull system that this product replaces, except where a comment
// says otherwise.
const (
	// DefaultAttempts is how often a run is tried before it counts as failed.
	DefaultAttempts = 3
	// DefaultBackoff is the wait before the first retry.
	DefaultBackoff = 5 * time.Second
	// DefaultBackoffFactor is what each further retry multiplies the wait by: 5 s, then 25 s.
	DefaultBackoffFactor = 5.0
	// DefaultKeepCompleted is how many completed runs of a job type are kept.
	DefaultKeepCompleted = 10
	// DefaultKeepFailed is how many failed runs of a job type are kept.
	DefaultKeepFailed = 20
	// DefaultMaxDuration ends a run that goes on and on. Bull had no such limit; asynq's own default, 30 minutes, would
	// kill long synchronisations.
	DefaultMaxDuration = 6 * time.Hour
)

// Payload is the content of a trigger's body and of a task. Implementations are pointers to structs of JSON fields;
// a field's `allowed` tag says in words what it must be, for error messages (see Decode) and the description of the API.
type Payload interface {
	// Kind names the runs that replace each other while they wait: of each kind at most one run waits. A job whose runs
	// are all alike returns "".
	Kind() string
	// Validate fills in defaults and returns a *FieldError for the first value that is out of range.
	Validate() error
}

// Schedule says when runs are enqueued by themselves. At most one of Every and Cron is set; the zero value means never.
type Schedule struct {
	// Every is an interval, aligned to the clock; see Validate for the allowed ones.
	Every time.Duration
	// Cron is a five-field cron expression, in UTC.
	Cron string
}

// Definition describes a job type. Routes, schedule, retries, retention, the API's description and the dashboard follow from
// it.
type Definition struct {
	// Name is the job type in URLs, settings and logs; it is also the name of its asynq queue and task type. Lower-case
	// words joined by hyphens.
	Name string
	// Title is the name in sentences, such as "User sync".
	Title string
	// NewPayload returns an empty payload to decode into; decoding "{}" into it must give a valid one if the job is
	// scheduled, because that is what a scheduled run carries.
	NewPayload func() Payload
	// PayloadVersion is the version of the payload, which grows with each change of its fields; 0 is 1.
	PayloadVersion int
	// Schedule is when runs are enqueued; the zero value for never.
	Schedule Schedule
	// Leases is how many runs are worked on at the same time, over all workers; 0 is 1.
	Leases int
	// Attempts is how often a run is tried; at least 1.
	Attempts int
	// Backoff is the wait before the first retry, at least a second.
	Backoff time.Duration
	// BackoffFactor multiplies the wait with each further retry; at least 1.
	BackoffFactor float64
	// KeepCompleted and KeepFailed are how many runs of each outcome are kept, the newest. In a Definition 0 is the
	// default; only the settings can make it none.
	KeepCompleted, KeepFailed int
	// MaxDuration is how long a run may take, from its first start and over all its attempts.
	MaxDuration time.Duration
}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// withDefaults returns d with the defaults in the place of zero values, except for the two Keep fields, where zero has
// a meaning once it has been configured: see Registry.
func (d Definition) withDefaults() Definition {
	if d.Leases == 0 {
		d.Leases = 1
	}
	if d.Attempts == 0 {
		d.Attempts = DefaultAttempts
	}
	if d.Backoff == 0 {
		d.Backoff = DefaultBackoff
	}
	if d.BackoffFactor == 0 {
		d.BackoffFactor = DefaultBackoffFactor
	}
	if d.KeepCompleted == 0 {
		d.KeepCompleted = DefaultKeepCompleted
	}
	if d.KeepFailed == 0 {
		d.KeepFailed = DefaultKeepFailed
	}
	if d.MaxDuration == 0 {
		d.MaxDuration = DefaultMaxDuration
	}
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

// Registry is the set of job types that a system knows, in a fixed order. It is read-only once built.
type Registry struct {
	definitions []Definition
}

// NewRegistry returns a Registry of the definitions, with the defaults filled in for what they leave out. It returns
// an error that names the definition and what is wrong with it.
func NewRegistry(definitions ...Definition) (*Registry, error) {
	r := &Registry{}
	for _, d := range definitions {
		switch {
		case !namePattern.MatchString(d.Name):
			return nil, fmt.Errorf("job type %q: its name must be lower-case words joined by hyphens", d.Name)
		case d.Title == "":
			return nil, fmt.Errorf("job type %q has no title", d.Name)
		case d.NewPayload == nil:
			return nil, fmt.Errorf("job type %q has no payload", d.Name)
		case contains(fieldsOf(d.NewPayload()), versionField):
			return nil, fmt.Errorf("job type %q: the payload must not have a field %q, which is its version's", d.Name, versionField)
		}
		if _, taken := r.Lookup(d.Name); taken {
			return nil, fmt.Errorf("job type %q is defined twice", d.Name)
		}
		r.definitions = append(r.definitions, d.withDefaults())
	}
	return r, nil
}

// Default returns the Registry of the job types that this product ships.
func Default() *Registry {
	r, err := NewRegistry(UserSync, ProjectSync, IssueSync)
	if err != nil {
		panic(err) // a programming error that every test would show
	}
	return r
}

// Lookup returns the definition of the name, and whether there is one.
func (r *Registry) Lookup(name string) (Definition, bool) {
	i := slices.IndexFunc(r.definitions, func(d Definition) bool { return d.Name == name })
	if i < 0 {
		return Definition{}, false
	}
	return r.definitions[i], true
}

// All returns every definition, in the order in which they were given.
func (r *Registry) All() []Definition { return slices.Clone(r.definitions) }

// Names returns every job type's name, in the order in which they were given.
func (r *Registry) Names() []string {
	names := make([]string, len(r.definitions))
	for i, d := range r.definitions {
		names[i] = d.Name
	}
	return names
}

// Resolve returns a copy of the Registry in which change has been applied to each definition: how configuration
// overrides what the definitions say.
func (r *Registry) Resolve(change func(*Definition)) *Registry {
	resolved := &Registry{definitions: slices.Clone(r.definitions)}
	for i := range resolved.definitions {
		change(&resolved.definitions[i])
	}
	return resolved
}
