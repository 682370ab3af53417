// The record of all that happens. The clients of the API, the watcher of Redis and the readers of the logs write it; the
// judge reads it at the end.

package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// promise is a promise of the product, in words for people.
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
	promiseFlush     promise = "after a flush of Redis new runs and the schedules work again, and are seen"
	promiseNeighbour promise = "another deployment in the same Redis works on its own runs, and on no others"
	promiseQuiet     promise = "all comes to rest when nothing is broken any more"
)

// breach is a promise that was not kept.
type breach struct {
	promise promise
	detail  string
}

// seenRun has all that was seen of one run. Its times are the times at which it was seen.
type seenRun struct {
	id       tasks.RunID
	kind     string // known once it has ended
	enqueued []time.Time
	begun    []time.Time // each attempt of each worker, from the logs
	// ends are the different ends that were seen; more than one is a breach.
	ends []runEnd
}

// runEnd is how a run ended.
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

// record has everything that was seen. It is safe for concurrent use.
type record struct {
	mu           sync.Mutex
	breaches     []breach
	runs         map[string]*seenRun
	acknowledged []acknowledged
	answers      []answer
	charged      map[string]bool      // attempts at runs and ranges other than the first
	announced    []string             // failed attempts, from the logs; one that was fenced costs nothing
	ranges       int                  // how many were enqueued
	rescued      int                  // runs and ranges that were rescued
	errors       map[string]int       // lines of the logs with the level ERROR, by message
	handled      map[string]time.Time // ticks, by the IDs of their runs
	recorded     map[string]time.Time // ticks that the product's own key has named
}

func newRecord() *record {
	return &record{
		runs: make(map[string]*seenRun), errors: make(map[string]int), charged: make(map[string]bool),
		handled: make(map[string]time.Time), recorded: make(map[string]time.Time),
	}
}

// breach records a promise that was not kept.
func (r *record) breach(p promise, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaches = append(r.breaches, breach{p, fmt.Sprintf(format, args...)})
}

// run returns the record of a run; the caller has locked r.
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
		r.breaches = append(r.breaches, breach{promiseRuns, fmt.Sprintf("a task with the ID %q, which is not a run's, was enqueued at %s", taskID, clock(at))})
		return
	}
	known := r.run(id)
	known.enqueued = append(known.enqueued, at)
	if id.Scheduled() {
		r.tickHandled(taskID, at)
	}
}

// isThere records a task that was found in a queue. It does not know when it was enqueued.
func (r *record) isThere(queue, taskID string, at time.Time) {
	r.mu.Lock()
	id, err := tasks.ParseRunID(taskID)
	known := err != nil || r.runs[taskID] != nil && len(r.run(id).enqueued) > 0
	r.mu.Unlock()
	if !known {
		r.wasEnqueued(queue, taskID, at)
	}
}

// tickHandled records that a tick was handled; the caller has locked r.
func (r *record) tickHandled(tickID string, at time.Time) {
	if before, ok := r.handled[tickID]; !ok || at.Before(before) {
		r.handled[tickID] = at
	}
}

// tickRecorded records a tick that the product's key has named as the latest one that was handled.
func (r *record) tickRecorded(tickID string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.recorded[tickID]; !ok {
		r.recorded[tickID] = at
	}
}

// hasEnded records how a run ended.
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

// logged records the lines of a log that the judge needs.
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
		r.rescued++
	case strings.Contains(line.Msg, " failed, will be tried again"), strings.HasSuffix(line.Msg, " job failed"), line.Msg == "A range failed":
		if _, err := tasks.ParseRunID(line.JobID); err != nil {
			return // to enqueue it was a breach already
		}
		r.announced = append(r.announced, fmt.Sprintf("%s: %s at %s: %s: %s", line.subject(), process, clock(line.Time), line.Msg, line.Error))
	case strings.HasSuffix(line.Msg, "ick enqueued"), strings.HasSuffix(line.Msg, "ick served by a run that still waits"):
		if tickTime, err := time.Parse(tasks.TimestampLayout, line.Tick); err == nil {
			r.tickHandled(tasks.TickID(line.Job, tickTime).String(), line.Time)
		}
	}
}

// attempted records an attempt; the caller has locked r.
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

// isAcknowledged reports whether an answer has promised the run.
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
