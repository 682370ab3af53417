package client

import (
	"encoding/json"
	"time"
)

// What the API says and is told, as JSON. The API itself encodes these types.

// timestampLayout is the ISO 8601 form of every instant in the API.
const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

// Time is an instant in the API: ISO 8601, UTC, with milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes the instant just as the API does. It never fails.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + timestampLayout + `"`)), nil
}

// Answer is the form of every answer under /jobs, and of every error.
type Answer struct {
	Success bool `json:"success"`
	// Message is a sentence for people: what was done, or what was wrong and what is right.
	Message string `json:"message,omitempty"`
	// Timestamp is when a trigger was answered.
	Timestamp Time `json:"timestamp,omitzero"`
	// Data is one of the types below.
	Data any `json:"data,omitempty"`
}

// State is the state of a job.
type State string

// The states of a job that is listed.
const (
	// StateWaiting: the job waits for a worker.
	StateWaiting State = "waiting"
	// StateActive: a worker runs the job.
	StateActive State = "active"
	// StateDelayed: the job waits for its time, or for its next attempt.
	StateDelayed State = "delayed"
	// StateCompleted: the job succeeded.
	StateCompleted State = "completed"
	// StateFailed: the last attempt failed. A server of an earlier release says so of a cancelled job, too.
	StateFailed State = "failed"
	// StateCancelled: the job was cancelled while it was active.
	StateCancelled State = "cancelled"
)

// The states that Cancel leaves a job in.
const (
	// StateRemoved: the job was waiting or delayed, and no longer exists.
	StateRemoved State = "removed"
	// StateCancelling: the job is active, and was told to stop.
	StateCancelling State = "cancelling"
)

// States are the states that jobs are listed by, in the order of a job's life.
func States() []State {
	return []State{StateWaiting, StateActive, StateDelayed, StateCompleted, StateFailed, StateCancelled}
}

// Ended reports whether the job is completed, failed or cancelled.
func (s State) Ended() bool { return s == StateCompleted || s == StateFailed || s == StateCancelled }

// CancelledError is the Job.Error of a job that was cancelled while it was active.
const CancelledError = "cancelled"

// Job is one run of a job type.
type Job struct {
	ID string `json:"id"`
	// Job is the job type, such as user-sync.
	Job   string `json:"job"`
	State State  `json:"state"`
	// Data is the payload, a JSON object.
	Data json.RawMessage `json:"data"`
	// Progress is in percent.
	Progress int `json:"progress"`
	// Attempt is the current attempt or the last one, counted from 1; 0 when none has begun.
	Attempt int `json:"attempt"`
	// Attempts is how many the job has.
	Attempts int `json:"attempts"`
	// Error is why the last attempt failed; "" if none has.
	Error string `json:"error,omitempty"`
	// TriggeredBy says who or what made the job; nil if that is not known.
	TriggeredBy *TriggeredBy `json:"triggeredBy,omitempty"`
	// EndedAttempts are the attempts that have ended, oldest first, with those before a retry.
	EndedAttempts []EndedAttempt `json:"endedAttempts,omitempty"`
	// Rescues say which workers were lost during the job, and which went on, oldest first.
	Rescues []Rescue `json:"rescues,omitempty"`
	// Counts is what the job has done to its records, by now or in all; nil if that is not known.
	Counts *RecordCounts `json:"counts,omitempty"`
	// Total is how many records a job that has not ended is to visit; 0 while that is not known.
	Total int64 `json:"total,omitempty"`
	// Result is the result of a completed job; see SyncResult.
	Result json.RawMessage `json:"result,omitempty"`
	// Waiting is set while a job that has begun waits for a server that is away, or is very slow.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Ranges is set while several workers share a large run.
	Ranges *Ranges `json:"ranges,omitempty"`
	// WorkerLost is true while an active job, or one of its ranges, has lost its worker.
	WorkerLost bool `json:"workerLost,omitempty"`
	// RescueWithin is in how many milliseconds at the latest the job, or its range, is put back into its queue then. There it waits its
	// turn. It is nil where the server cannot promise that, such as while no worker lives.
	RescueWithin *int64 `json:"rescueWithin,omitempty"`
	// CreatedAt is when the job was to start: the time of its tick, of its trigger, or the one that the trigger asked for.
	CreatedAt Time `json:"createdAt"`
	// StartedAt and EndedAt are zero where they are not known.
	StartedAt Time `json:"startedAt,omitzero"`
	EndedAt   Time `json:"endedAt,omitzero"`
	// Duration is the time from StartedAt to EndedAt, in milliseconds; nil if that is not known.
	Duration *int64 `json:"duration,omitempty"`
	// NextAttemptAt is when a delayed job starts, or is tried again.
	NextAttemptAt Time `json:"nextAttemptAt,omitzero"`
}

// Cancelled reports whether the job was cancelled while it was active.
func (j Job) Cancelled() bool {
	return j.State == StateCancelled || j.State == StateFailed && j.Error == CancelledError
}

// TriggeredBy says who or what made a job.
type TriggeredBy struct {
	// Kind is one of the constants below.
	Kind string `json:"kind"`
	// Key is the name of the API key; "" without one.
	Key string `json:"key,omitempty"`
	// At is when the job was retried; zero if it was not.
	At Time `json:"at,omitzero"`
}

// The values of TriggeredBy.Kind.
const (
	// TriggeredByTick is for the run of a tick.
	TriggeredByTick = "tick"
	// TriggeredByKey is for a request with an API key.
	TriggeredByKey = "key"
	// TriggeredByAPI is for a request to an API without keys.
	TriggeredByAPI = "api"
	// TriggeredByRetry is for a job that was retried.
	TriggeredByRetry = "retry"
)

// EndedAttempt is an attempt at a job that has ended.
type EndedAttempt struct {
	// Number counts from 1; after a retry from 1 again. The attempt after a released one has the same number.
	Number int `json:"number"`
	// StartedAt and EndedAt are when it began and ended.
	StartedAt Time `json:"startedAt"`
	EndedAt   Time `json:"endedAt"`
	// Worker is the ID of the worker; see Process.
	Worker string `json:"worker"`
	// Outcome is "completed", "failed", "cancelled", or "released": a shutdown ended it, at no cost.
	Outcome string `json:"outcome"`
	// Error is why it failed; "" if it did not.
	Error string `json:"error,omitempty"`
}

// Rescue says that a worker was lost, and which one went on with what it did. The attempt of the lost worker is not among the ended ones.
type Rescue struct {
	// At is when the other worker took over.
	At Time `json:"at"`
	// Range is the index of the range that it took over, which counts from 0; nil if that was the job as a whole.
	Range *int `json:"range,omitempty"`
	// LostWorker is the ID of the worker that was lost; "" if that is not known.
	LostWorker string `json:"lostWorker,omitempty"`
	// Worker is the ID of the worker that went on.
	Worker string `json:"worker"`
}

// RecordCounts says what a job has done to its records.
type RecordCounts struct {
	Processed int64 `json:"processed"`
	Updated   int64 `json:"updated"`
	Failed    int64 `json:"failed"`
}

// Waiting is what a job waits for that has begun.
type Waiting struct {
	// For is what the job waits to be done, for people, such as "updating users".
	For string `json:"for"`
	// Since is when it began to wait.
	Since Time `json:"since"`
	// Upstream is true if it waits for what its own work needs, such as another service. Then this system itself may be well.
	Upstream bool `json:"upstream,omitempty"`
	// Slow is true if the request has taken 10 seconds or more, and nothing has failed. Then the server may be slow, or away.
	Slow bool `json:"slow,omitempty"`
}

// WaitingJob is an active job that waits.
type WaitingJob struct {
	ID string `json:"id"`
	Waiting
}

// Ranges counts the ranges of a large run.
type Ranges struct {
	Total int `json:"total"`
	Ended int `json:"ended"`
}

// SyncPayload is the payload of user-sync, project-sync and issue-sync. The zero value is valid.
type SyncPayload struct {
	// SyncType is SyncFull or SyncIncremental, the default.
	SyncType string `json:"syncType,omitempty"`
	// BatchSize is the number of records in a batch, from 1 to 10,000; 0 leaves it to the workers' settings.
	BatchSize int `json:"batchSize,omitempty"`
}

// The values of SyncPayload.SyncType.
const (
	// SyncFull visits every record.
	SyncFull = "full"
	// SyncIncremental visits the records that were not synchronised within the freshness window.
	SyncIncremental = "incremental"
)

// SyncResult is the result of user-sync, project-sync and issue-sync. Its fields have the users' name whatever the
// records are.
type SyncResult struct {
	// Success is true when the run reached its end.
	Success bool `json:"success"`
	// UsersProcessed is the number of records that the run visited.
	UsersProcessed int64 `json:"usersProcessed"`
	// UsersUpdated is the number of records that the run updated.
	UsersUpdated int64 `json:"usersUpdated"`
	// Errors is the number of records whose update failed.
	Errors int64 `json:"errors"`
	// Duration is the working time over all attempts, in milliseconds.
	Duration int64 `json:"duration"`
	// Timestamp is when the run ended.
	Timestamp Time `json:"timestamp"`
	// Warnings say what is odd about the run, such as that its collection does not exist.
	Warnings []string `json:"warnings,omitempty"`
}

// JobList is one page of jobs.
type JobList struct {
	Jobs []Job `json:"jobs"`
	// Total is how many there are on all pages.
	Total int `json:"total"`
	// Page is counted from 1.
	Page     int `json:"page"`
	PageSize int `json:"pageSize"`
}

// Triggered is the answer to a trigger.
type Triggered struct {
	JobID string `json:"jobId"`
	// Coalesced is true when a job of that kind serves the trigger: one that already waits or, for some job types, the one of a
	// trigger before, which may have ended. It is the one that JobID names.
	Coalesced bool `json:"coalesced"`
	// RunAt is when a delayed job starts; zero for any other.
	RunAt Time `json:"runAt,omitzero"`
	// Message is the server's, for people.
	Message string `json:"-"`
}

// Changed is the answer to a cancel or a retry.
type Changed struct {
	ID string `json:"id"`
	// State is StateRemoved, StateCancelling or StateWaiting.
	State State `json:"state"`
	// Message is the server's, for people; it can be "".
	Message string `json:"-"`
}

// CleanedUp is how many jobs were removed.
type CleanedUp struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	// Message is the server's, for people.
	Message string `json:"-"`
}

// Retried is how many failed jobs were enqueued again.
type Retried struct {
	Retried int `json:"retried"`
	// Left is how many were left when the time was up. Ask again for them.
	Left int `json:"left"`
	// Message is the server's, for people.
	Message string `json:"-"`
}

// Removed is how many waiting jobs were removed.
type Removed struct {
	Removed int `json:"removed"`
	// Left is how many were left when the time was up. Ask again for them.
	Left int `json:"left"`
	// Message is the server's, for people.
	Message string `json:"-"`
}

// Status is the state of one job type, or of all together.
type Status struct {
	RepeatableJobs []RepeatableJob `json:"repeatableJobs"`
	Counts         Counts          `json:"counts"`
	// Paused is whether the job type is paused; of all together, whether each is.
	Paused     bool        `json:"paused"`
	ActiveJobs []ActiveJob `json:"activeJobs"`
}

// RepeatableJob is a schedule in the form of the Bull system; see Schedule.
type RepeatableJob struct {
	Name string `json:"name"`
	// Key begins with the job type.
	Key string `json:"key"`
	// Every is in milliseconds; nil for a cron expression whose ticks are not evenly spaced.
	Every *int64 `json:"every"`
	// Next is in milliseconds since the epoch.
	Next int64 `json:"next"`
}

// Counts is how many jobs there are in each state.
type Counts struct {
	Active    int `json:"active"`
	Waiting   int `json:"waiting"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Delayed   int `json:"delayed"`
}

// ActiveJob is an active job, in short.
type ActiveJob struct {
	ID string `json:"id"`
	// Data is the payload, a JSON object.
	Data json.RawMessage `json:"data"`
	// Progress is in percent.
	Progress int `json:"progress"`
}

// Schedule is a job type's live schedule.
type Schedule struct {
	Job string `json:"job"`
	// Spec is the interval or the cron expression.
	Spec string `json:"spec"`
	// Every is in milliseconds; nil for a cron expression whose ticks are not evenly spaced.
	Every *int64 `json:"every"`
	// Next is the next tick.
	Next Time `json:"next"`
	// Previous is the latest tick that was handled; nil if there was none.
	Previous *Time `json:"previous"`
	// Paused is whether the jobs of the job type wait until it is resumed.
	Paused bool `json:"paused"`
}

// ScheduleList is every live schedule.
type ScheduleList struct {
	Schedules []Schedule `json:"schedules"`
}

// JobType is what the server knows of one job type.
type JobType struct {
	// Name is the job type in URLs and commands, such as user-sync.
	Name string `json:"name"`
	// Title is its name in sentences, such as "User sync".
	Title string `json:"title"`
	// Schedule is its live schedule, an interval or a cron expression; nil where it has none.
	Schedule *string `json:"schedule"`
	// Paused is whether its jobs wait until it is resumed.
	Paused bool `json:"paused"`
	// Attempts is how often one of its jobs is tried.
	Attempts int `json:"attempts"`
	// Overall is how many of its jobs are active at the same time, over all workers; 0 where that has no limit.
	Overall int `json:"overall,omitempty"`
	// Fields are those of its payload. The body of a trigger may have these, and runAt or delay; see RunAt and Delay.
	Fields []Field `json:"fields"`
}

// Field is a field of a trigger's body.
type Field struct {
	Name string `json:"name"`
	// Type is string, integer, number, boolean, array or object; "" where it can be any.
	Type string `json:"type,omitempty"`
	// Allowed says in words what the field must be.
	Allowed string `json:"allowed"`
	// Required is whether each trigger must have the field.
	Required bool `json:"required,omitempty"`
	// Options are the only texts that the field can be, if there are such.
	Options []string `json:"options,omitempty"`
	// Default is what a trigger without the field means; nil where the server does not say.
	Default json.RawMessage `json:"default,omitempty"`
}

// JobTypeList is every job type that the server knows. The first one is meant where a request names none.
type JobTypeList struct {
	JobTypes []JobType `json:"jobTypes"`
}

// NotifyTest is what became of a test of notifications.
type NotifyTest struct {
	// ID is the webhook-id of the test.
	ID string `json:"id"`
	// Delivered is whether the receiver has taken the test, with a status from 200 to 299.
	Delivered bool `json:"delivered"`
	// Status is the HTTP status of its answer, if it has taken the test; otherwise 0, and Error says why it has not.
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
	// Message is the server's, for people.
	Message string `json:"-"`
}

// Process is a process of the system that lives: a worker or a scheduler.
type Process struct {
	// Role is "worker" or "scheduler".
	Role string `json:"role"`
	// ID names the process among those of its role, as its log does: host, process ID and something random.
	ID string `json:"id"`
	// LastSeen is when the process last said that it lives; it does so every other second.
	LastSeen Time `json:"lastSeen"`
	// Version is its release, and StartedAt when it started; "" and zero for a process of an earlier release, which does not say.
	Version   string `json:"version,omitempty"`
	StartedAt Time   `json:"startedAt,omitzero"`
	// Doing is what a worker works on.
	Doing []Doing `json:"doing,omitempty"`
}

// Doing is a job that a worker works on, or one of its ranges.
type Doing struct {
	Job string `json:"job"`
	// Range is the range's index, which counts from 0; nil for the job as a whole.
	Range *int `json:"range,omitempty"`
}

// ProcessList is every process that lives.
type ProcessList struct {
	Processes []Process `json:"processes"`
}

// Identity is who the server takes a client for.
type Identity struct {
	// Key is the name of the API key that the request was sent with; "" if the server has no keys.
	Key string `json:"key,omitempty"`
	// Write is whether the client may change something.
	Write bool `json:"write"`
}

// What Health.Status and Dependency.Status are.
const (
	StatusOK           = "OK"
	StatusDegraded     = "DEGRADED"
	StatusConnected    = "connected"
	StatusDisconnected = "disconnected"
)

// Health is the health of the system.
type Health struct {
	// Status is StatusOK, or StatusDegraded when Redis or MongoDB is away, Redis does not accept writes, or an active job waits
	// for one of them.
	Status    string `json:"status"`
	Timestamp Time   `json:"timestamp"`
	// Uptime is how long the API's process has run, in seconds.
	Uptime   int64      `json:"uptime"`
	Database Dependency `json:"database"`
	Redis    Dependency `json:"redis"`
	Jobs     JobsHealth `json:"jobs"`
}

// Dependency is the health of a server that the system needs.
type Dependency struct {
	// Status is StatusConnected, or StatusDisconnected when the server does not answer or does not accept writes.
	Status string `json:"status"`
	// ResponseTime is in milliseconds.
	ResponseTime int64 `json:"responseTime"`
	// Error says what the server refuses, when it answers and is StatusDisconnected all the same.
	Error string `json:"error,omitempty"`
}

// JobsHealth is whether jobs can run.
type JobsHealth struct {
	// Initialized is true when a worker and the schedules that are not switched off are live.
	Initialized bool `json:"initialized"`
	Workers     int  `json:"workers"`
	Schedulers  int  `json:"schedulers"`
	// Missing says what is missing, when Initialized is false.
	Missing []string `json:"missing,omitempty"`
	// Warnings says in words what a person should look at, although nothing is missing.
	Warnings []string `json:"warnings,omitempty"`
	// Waiting lists the active jobs that wait for a server that is away or does not answer.
	Waiting []WaitingJob `json:"waiting,omitempty"`
}

// Healthy reports whether nothing is missing: the servers, a worker and a schedule.
func (h Health) Healthy() bool { return h.Status == StatusOK && h.Jobs.Initialized }
