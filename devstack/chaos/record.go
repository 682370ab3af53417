// What happened is recorded while it happens, by whoever sees it: the clients of the API, the watcher of Redis, and the
// readers of the logs. It is judged at the end.

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// promise is one of those that the product makes, in words for people.
type promise string

// The promises.
const (
	promiseTicks     promise = "every tick enqueues one run"
	promiseRuns      promise = "every run that was enqueued completes, once"
	promiseAttempts  promise = "no fault costs an attempt"
	promiseRecords   promise = "every record is synchronised"
	promiseAnswers   promise = "the API answers within 2 s, and says so when Redis is away"
	promiseKeys      promise = "nothing is left in Redis"
	promiseProcesses promise = "every process survives"
	promiseQuiet     promise = "all comes to rest when nothing is broken any more"
)

// breach is a promise that was not kept.
type breach struct {
	promise promise
	detail  string
}

// seenRun is all that was seen of one run. Times are of when it was seen.
type seenRun struct {
	id       tasks.RunID
	kind     string // known once it has ended
	enqueued []time.Time
	begun    []time.Time // by the logs, each attempt of each worker
	// ends are the different ends that were seen; more than one is a breach.
	ends []runEnd
}

// runEnd is how a run has ended.
type runEnd struct {
	state   asynq.TaskState
	at      time.Time // of the completion or the last failure, in seconds
	seen    time.Time
	reason  string
	retried int
	result  []byte
}

// acknowledged is a trigger that was answered with success.
type acknowledged struct {
	id, kind, api   string
	coalesced       bool
	asked, answered time.Time
}

// answer is what came of one request.
type answer struct {
	api, what string
	asked     time.Time
	took      time.Duration
	status    int // 0 when there was no answer
	err       error
}

// record is everything that was seen. It is safe for concurrent use.
type record struct {
	mu           sync.Mutex
	breaches     []breach
	runs         map[string]*seenRun
	acknowledged []acknowledged
	answers      []answer
	charged      map[string]bool      // attempts at runs and ranges other than the first
	announced    []string             // failed attempts, as the logs say: of what another worker has taken over they cost none
	ranges       int                  // how many were enqueued
	takenOver    int                  // runs and ranges of dead workers
	errors       map[string]int       // lines of the logs with the level ERROR, by message
	dealt        map[string]time.Time // ticks, by the IDs of their runs
	recorded     map[string]time.Time // ticks that the product's own key has named
}

func newRecord() *record {
	return &record{
		runs: make(map[string]*seenRun), errors: make(map[string]int), charged: make(map[string]bool),
		dealt: make(map[string]time.Time), recorded: make(map[string]time.Time),
	}
}

// breach records a promise that was not kept.
func (r *record) breach(p promise, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaches = append(r.breaches, breach{p, fmt.Sprintf(format, args...)})
}

// run returns what is known of a run; the record must be locked.
func (r *record) run(id tasks.RunID) *seenRun {
	text := id.String()
	if r.runs[text] == nil {
		r.runs[text] = &seenRun{id: id}
	}
	return r.runs[text]
}

// wasEnqueued records a task that came to be in a queue.
func (r *record) wasEnqueued(queue, taskID string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(queue, ":") {
		r.ranges++
		return
	}
	id, err := tasks.ParseRunID(taskID)
	if err != nil {
		r.breaches = append(r.breaches, breach{promiseRuns, fmt.Sprintf("what is no run was enqueued as %q at %s", taskID, clock(at))})
		return
	}
	known := r.run(id)
	known.enqueued = append(known.enqueued, at)
	if id.Scheduled() {
		r.dealtWith(taskID, at)
	}
}

// isThere records a task that was found in a queue; when it was enqueued is known only if that was seen, too.
func (r *record) isThere(queue, taskID string, at time.Time) {
	r.mu.Lock()
	id, err := tasks.ParseRunID(taskID)
	known := err != nil || r.runs[taskID] != nil && len(r.run(id).enqueued) > 0
	r.mu.Unlock()
	if !known {
		r.wasEnqueued(queue, taskID, at)
	}
}

// dealtWith records that a tick was; the record must be locked.
func (r *record) dealtWith(tickID string, at time.Time) {
	if before, ok := r.dealt[tickID]; !ok || at.Before(before) {
		r.dealt[tickID] = at
	}
}

// tickRecorded records that the product's key for the latest tick that was dealt with names this one.
func (r *record) tickRecorded(tickID string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.recorded[tickID]; !ok {
		r.recorded[tickID] = at
	}
}

// hasEnded records how a run was seen to have ended.
func (r *record) hasEnded(info *asynq.TaskInfo, seen time.Time) {
	id, err := tasks.ParseRunID(info.ID)
	if err != nil {
		return
	}
	end := runEnd{state: info.State, at: info.CompletedAt, seen: seen, retried: info.Retried, result: info.Result}
	if info.State != asynq.TaskStateCompleted {
		end.at, end.reason = info.LastFailedAt, info.LastErr
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.run(id)
	known.kind = kindOf(info.Payload)
	if last := len(known.ends) - 1; last < 0 || known.ends[last].state != end.state || !known.ends[last].at.Equal(end.at) {
		known.ends = append(known.ends, end)
	}
}

// kindOf returns the sync type of a payload; "" when it is none.
func kindOf(payload []byte) string {
	var p tasks.SyncPayload
	if tasks.Decode(payload, &p) != nil {
		return ""
	}
	return p.SyncType
}

// logged records what is of interest in the log of a process.
func (r *record) logged(process string, line logLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if line.Level == "ERROR" {
		r.errors[line.Msg]++
	}
	switch {
	case strings.Contains(line.Msg, "panicked"):
		r.breaches = append(r.breaches, breach{promiseProcesses, fmt.Sprintf("%s at %s: %s: %s", process, clock(line.Time), line.Msg, line.Error)})
	case strings.HasPrefix(line.Msg, "Starting ") && strings.HasSuffix(line.Msg, " job"):
		if id, err := tasks.ParseRunID(line.JobID); err == nil {
			known := r.run(id)
			known.begun = append(known.begun, line.Time)
		}
		r.attempted(line)
	case line.Msg == "Starting range":
		r.attempted(line)
	case strings.HasPrefix(line.Msg, "Recovered "):
		r.takenOver++
	case strings.Contains(line.Msg, " failed, will be tried again"), strings.HasSuffix(line.Msg, " job failed"), line.Msg == "A range failed":
		if _, err := tasks.ParseRunID(line.JobID); err != nil {
			return // that it was enqueued is a breach
		}
		r.announced = append(r.announced, fmt.Sprintf("%s: %s at %s: %s: %s", line.subject(), process, clock(line.Time), line.Msg, line.Error))
	case strings.HasSuffix(line.Msg, "ick enqueued"), strings.HasSuffix(line.Msg, "ick served by a run that still waits"):
		if tickTime, err := time.Parse(tasks.TimestampLayout, line.Tick); err == nil {
			r.dealtWith(tasks.TickID(line.Job, tickTime).String(), line.Time)
		}
	}
}

// attempted records an attempt; the record must be locked.
func (r *record) attempted(line logLine) {
	if line.Attempt > 1 {
		r.charged[fmt.Sprintf("%s: attempt %d", line.subject(), line.Attempt)] = true
	}
}

// wasAcknowledged records a trigger.
func (r *record) wasAcknowledged(a acknowledged) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acknowledged = append(r.acknowledged, a)
}

// isAcknowledged reports whether somebody was told that the run would come to be.
func (r *record) isAcknowledged(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.acknowledged, func(a acknowledged) bool { return a.id == id })
}

func (r *record) answered(a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(r.answers, a)
}

// clock writes an instant as the logs do.
func clock(t time.Time) string { return t.UTC().Format(tasks.TimestampLayout) }
