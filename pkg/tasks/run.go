package tasks

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// RunID is the identity of a run, the API's job id: `<reference>:<job>` for the run of a tick, and
// `<reference>:<job>:<suffix>` for one that was triggered, where reference is the run's reference time in milliseconds
// since the epoch. It stays the same through retries and takeovers. IDs sort by reference time. That comes first because
// asynqmon shows of an ID only what is before its first hyphen.
type RunID struct {
	// Job is the job type's name.
	Job string
	// Reference is the instant that the run belongs to: its tick's, or that at which its trigger was accepted.
	Reference time.Time
	// Suffix tells triggered runs of the same millisecond apart; it is empty for the run of a tick.
	Suffix string
}

// TickID returns the ID of the run of the tick at tickTime: the same for every scheduler.
func TickID(job string, tickTime time.Time) RunID {
	return RunID{Job: job, Reference: tickTime.Truncate(time.Millisecond).UTC()}
}

// TriggerID returns a new ID for a run that was triggered at the time.
func TriggerID(job string, at time.Time) RunID {
	id := TickID(job, at)
	id.Suffix = strings.ToLower(rand.Text()[:8])
	return id
}

// String returns the ID's text.
func (id RunID) String() string {
	s := strconv.FormatInt(id.Reference.UnixMilli(), 10) + ":" + id.Job
	if id.Suffix != "" {
		s += ":" + id.Suffix
	}
	return s
}

// Scheduled reports whether the run is that of a tick.
func (id RunID) Scheduled() bool { return id.Suffix == "" }

// ParseRunID reads the text of an ID. It returns an error that says what an ID looks like.
func ParseRunID(s string) (RunID, error) {
	millis, rest, _ := strings.Cut(s, ":")
	job, suffix, _ := strings.Cut(rest, ":")
	ms, err := strconv.ParseInt(millis, 10, 64)
	id := RunID{Job: job, Reference: time.UnixMilli(ms).UTC(), Suffix: suffix}
	if err != nil || ms < 0 || !namePattern.MatchString(job) || strings.Contains(suffix, ":") || id.String() != s {
		return RunID{}, fmt.Errorf("job id %q is not of the form <milliseconds>:<job> or <milliseconds>:<job>:<suffix>", abbreviate(s))
	}
	return id, nil
}

const (
	// Completed tasks stay until their number is above the Definition's; asynq's retention, which is by time, must not
	// be shorter.
	completedRetention = 10 * 365 * 24 * time.Hour
	// asynq's own timeout only has to be longer than the run's maximum duration, which the worker enforces: asynq would
	// charge an attempt for each of its timeouts and try again.
	timeoutMargin = time.Hour
	// The worker counts the attempts itself, and anew when a run that has failed is retried by hand. asynq must never come
	// to a limit of its own: it would archive a task even for an end that is no failure, such as a shutdown.
	maxRetry = 1_000_000
)

// ScheduledPayload returns what the job type's scheduled runs carry: the payload's defaults.
func (d Definition) ScheduledPayload() (Payload, error) {
	p, err := d.DecodePayload(nil)
	if err != nil {
		return nil, fmt.Errorf("job type %q cannot be scheduled: %w", d.Name, err)
	}
	return p, nil
}

// TaskOptions returns the options of a run's task.
func (d Definition) TaskOptions(id string) []asynq.Option {
	return []asynq.Option{
		asynq.Queue(d.Name),
		asynq.MaxRetry(maxRetry),
		asynq.Timeout(d.MaxDuration + timeoutMargin),
		asynq.Retention(completedRetention),
		asynq.TaskID(id),
	}
}

// NewTask returns the asynq task of a run with the given ID, encoded payload, and headers, which may be nil.
func (d Definition) NewTask(id RunID, payload []byte, headers map[string]string) *asynq.Task {
	return asynq.NewTaskWithHeaders(d.Name, payload, headers, d.TaskOptions(id.String())...)
}
