// What job types of both kinds have in common.

package job

import (
	"log/slog"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Type is a job type, ready for the programs. Make one with New or NewSync.
type Type struct{ described jobtype.Type }

// Name returns the name of the job type.
func (t Type) Name() string { return t.described.Definition.Name }

// Err returns what is wrong with the job type, or nil. A program does not start with a job type that is wrong.
func (t Type) Err() error {
	_, err := jobtype.Registry([]jobtype.Type{t.described})
	return err
}

func init() {
	jobtype.Of = func(public any) jobtype.Type { return public.(Type).described }
}

// Options are what a Sync and a Job have in common. A zero value means the default.
type Options struct {
	// Schedule says when runs are enqueued, apart from those that clients trigger. The default is never. If {} is a valid
	// payload, settings can change it.
	Schedule Schedule
	// Rate limits the calls over all workers: of a Job's Do, or of a Sync's Update, which is called once for each batch, or
	// part of one after Halve.
	Rate Rate
	// Attempts is how many attempts a run has before it fails. The default is 3, unless a setting says otherwise.
	Attempts int
	// Backoff is the wait before the first retry, at least a second. The default is 5 s. BackoffFactor multiplies it for each
	// further one, and is at least 1. The default is 5: 5 s, then 25 s.
	Backoff       time.Duration
	BackoffFactor float64
	// KeepCompleted and KeepFailed are how many ended runs are kept, the newest ones. The defaults are 10 and 20.
	KeepCompleted, KeepFailed int
	// MaxDuration is how long a run may take, from its first start and over all its attempts. The time that it waits because what
	// it needs is away does not count. The default is 6 h.
	MaxDuration time.Duration
}

// Schedule says when runs are enqueued. At most one of Every and Cron is set.
type Schedule struct {
	// Every is an interval, aligned to the clock: whole seconds that divide a minute, whole minutes that divide an hour, or whole
	// hours that divide a day.
	Every time.Duration
	// Cron is a cron expression of five fields, in UTC.
	Cron string
}

// Rate is a limit of calls: no window of the length Per, in whole milliseconds, has more than Calls of them, as the called
// service counts them. The zero value is no limit.
type Rate struct {
	Calls int
	Per   time.Duration
}

// Attempt says which attempt at which run calls a function.
type Attempt struct {
	// RunID names the run, as the API does. It is the same in all attempts.
	RunID string
	// JobType is the name of the job type.
	JobType string
	// Number counts the attempts from 1. An attempt that a shutdown or a crash ended does not count.
	Number int
	// Retries counts how many times the run was retried by hand. Each time its Number begins at 1 again. A retry that did not get
	// through may count, too.
	Retries int
	// Reference is the time of the run's tick, or when its trigger was accepted, or for which it was delayed.
	Reference time.Time
	// Log adds the run's keys to each line.
	Log *slog.Logger
}

func newAttempt(a *jobtype.Attempt) Attempt {
	return Attempt{
		RunID: a.ID.String(), JobType: a.Definition.Name, Number: a.Number, Retries: a.Retries, Reference: a.ID.Reference, Log: a.Log,
	}
}

// define returns the definition of a job type.
func (o Options) define(name, title string, payload func() tasks.Payload) tasks.Definition {
	if title == "" && name != "" {
		title = strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "-", " ")
	}
	return tasks.Definition{
		Name: name, Title: title, NewPayload: payload,
		Schedule: tasks.Schedule(o.Schedule), Rate: tasks.Rate(o.Rate),
		Attempts: o.Attempts, Backoff: o.Backoff, BackoffFactor: o.BackoffFactor,
		KeepCompleted: o.KeepCompleted, KeepFailed: o.KeepFailed, MaxDuration: o.MaxDuration,
	}
}
