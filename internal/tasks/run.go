// The ID and the task of a run.

package tasks

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// RunID names a run. Its text is the API's job ID: `<reference>:<job>` for the run of a tick, and `<reference>:<job>:<suffix>`
// for a triggered one, with the reference time in milliseconds since the epoch. It stays the same in all attempts. IDs sort by
// reference time. That comes first also because asynqmon shows an ID only up to its first hyphen.
type RunID struct {
	// Job is the job type's name.
	Job string
	// Reference is the reference time: the tick time, or the moment that the trigger was accepted.
	Reference time.Time
	// Suffix tells triggered runs of the same millisecond apart. The run of a tick has none.
	Suffix string
}

// TickID returns the ID of the run of the tick at tickTime. It is the same in every scheduler.
func TickID(job string, tickTime time.Time) RunID {
	return RunID{Job: job, Reference: tickTime.Truncate(time.Millisecond).UTC()}
}

// TriggerID returns a new ID for a run that was triggered at a time.
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

// Scheduled reports whether a tick enqueued the run.
func (id RunID) Scheduled() bool { return id.Suffix == "" }

// ParseRunID reads the text of an ID. Its error says what an ID looks like.
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
	// completedRetention is longer than a completed run is kept. We keep a number of runs, asynq only knows a time.
	completedRetention = 10 * 365 * 24 * time.Hour
	// timeoutMargin makes asynq's timeout longer than the run's maximum duration, which the worker enforces. asynq would count
	// its timeout as a failed attempt, and retry.
	timeoutMargin = time.Hour
	// maxRetry is a limit that asynq never reaches. The worker counts the attempts itself. At its limit asynq would archive a
	// task even after a shutdown, which is no failure.
	maxRetry = 1_000_000
)

// ScheduledPayload returns the payload that the job type's scheduled runs carry: all defaults. It returns an error if the
// defaults are not valid.
func (d Definition) ScheduledPayload() (Payload, error) {
	p, err := d.DecodePayload(nil)
	if err != nil {
		return nil, fmt.Errorf("job type %q cannot be scheduled: %w", d.Name, err)
	}
	return p, nil
}

// TaskOptions returns the options of the task of a run with the ID.
func (d Definition) TaskOptions(id string) []asynq.Option {
	return []asynq.Option{
		asynq.Queue(d.Queue()),
		asynq.MaxRetry(maxRetry),
		asynq.Timeout(d.MaxDuration + timeoutMargin),
		asynq.Retention(completedRetention),
		asynq.TaskID(id),
	}
}

// NewTask returns the asynq task of a run. It carries the encoded payload, and headers, which can be nil.
func (d Definition) NewTask(id RunID, payload []byte, headers map[string]string) *asynq.Task {
	return asynq.NewTaskWithHeaders(d.Name, payload, headers, d.TaskOptions(id.String())...)
}
