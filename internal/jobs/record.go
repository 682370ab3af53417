// What happened to a run: who triggered it, when it started and ended, and each of its attempts. asynq knows the end in whole
// seconds, and only the last error. So these fields of ours are in asynq's hash of the task, which asynq leaves alone. They end
// with it, whatever removes it. Processes of the previous release neither write nor read them:
//
//	codex:started   when the first attempt began (ms); after a retry by hand, that of the retry
//	codex:ended     when the run ended (ms)
//	codex:attempts  the attempts that have ended, one line of JSON each
//	codex:rescues   the rescues of the run and of its ranges, one line of JSON each
//	codex:counts    what the run has done, as JSON
//	codex:retried   who retried it by hand last, as JSON
//	codex:retries   how many times it was retried by hand
//	codex:entered   the time of its last entry in the history (ms)
//
// Who triggered a run is in a header of its task.

package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// triggerHeader is the task header that says who triggered a run, as JSON.
	triggerHeader = "codex-triggered-by"
	// maxAttemptError is how much of an attempt's error is kept, in bytes. The task has the whole last one.
	maxAttemptError = 2000
)

// The values of Trigger.Kind.
const (
	// TriggeredByTick is for the run of a tick.
	TriggeredByTick = "tick"
	// TriggeredByKey is for a request with an API key.
	TriggeredByKey = "key"
	// TriggeredByAPI is for a request to an API without keys.
	TriggeredByAPI = "api"
	// TriggeredByRetry is for a run that was retried by hand.
	TriggeredByRetry = "retry"
)

// Trigger says who or what made a run.
type Trigger struct {
	Kind string `json:"kind"`
	// Key is the name of the API key. It is "" without one.
	Key string `json:"key,omitempty"`
	// At is when the run was retried by hand, in ms. It is 0 for other kinds: the run's ID says when.
	At int64 `json:"at,omitempty"`
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	OutcomeCompleted Outcome = "completed"
	OutcomeFailed    Outcome = "failed"
	OutcomeCancelled Outcome = "cancelled"
	// OutcomeReleased is for an attempt that a shutdown ended, or a lost lease. It did not count.
	OutcomeReleased Outcome = "released"
)

// EndedAttempt is an attempt at a run that has ended.
type EndedAttempt struct {
	// Number counts from 1. The attempt after a released one has the same number. A retry by hand counts from 1 again.
	Number int
	// Started and Ended are when it began and ended.
	Started, Ended time.Time
	// Worker is the ID of the worker.
	Worker  string
	Outcome Outcome
	// Error is why it failed. It is "" if it did not.
	Error string
}

// Rescue says that a worker was lost, and which one went on with what it did.
type Rescue struct {
	// At is when the other worker took over.
	At time.Time
	// Range is the index of the range that it took over. It is nil if that was the run itself.
	Range *int
	// Lost is the ID of the worker that was lost. It is "" if that was of an older release.
	Lost string
	// Worker is the ID of the worker that went on.
	Worker string
}

// rescueLine is a Rescue as Redis has it. The time is in ms.
type rescueLine struct {
	At     int64  `json:"at"`
	Range  *int   `json:"range,omitempty"`
	Lost   string `json:"lost,omitempty"`
	Worker string `json:"worker"`
}

func (r Rescue) line() rescueLine { return rescueLine{r.At.UnixMilli(), r.Range, r.Lost, r.Worker} }

func (l rescueLine) rescue() Rescue { return Rescue{fromMillis(l.At), l.Range, l.Lost, l.Worker} }

// RecordCounts says what a run has done to its records.
type RecordCounts struct {
	Processed int64 `json:"processed"`
	Updated   int64 `json:"updated"`
	Failed    int64 `json:"failed"`
}

// attemptLine is an EndedAttempt as Redis has it. Times are in ms.
type attemptLine struct {
	Number  int     `json:"number"`
	Started int64   `json:"started"`
	Ended   int64   `json:"ended"`
	Worker  string  `json:"worker"`
	Outcome Outcome `json:"outcome"`
	Error   string  `json:"error,omitempty"`
}

func (a EndedAttempt) encode() string {
	a.Error = shortened(a.Error)
	line, _ := json.Marshal(a.line()) // it has no types that can fail
	return string(line)
}

// shortened returns an error's text, and of a long one its beginning and "…".
func shortened(text string) string {
	if len(text) <= maxAttemptError {
		return text
	}
	return strings.ToValidUTF8(text[:maxAttemptError], "") + "…"
}

func (a EndedAttempt) line() attemptLine {
	return attemptLine{a.Number, a.Started.UnixMilli(), a.Ended.UnixMilli(), a.Worker, a.Outcome, a.Error}
}

func (l attemptLine) attempt() EndedAttempt {
	return EndedAttempt{l.Number, time.UnixMilli(l.Started), time.UnixMilli(l.Ended), l.Worker, l.Outcome, l.Error}
}

// record begins the scripts that end an attempt: record(task, attempt) adds the attempt to the task, if it still is there. Of many
// attempts the last ones stay.
const record = `
local function record(task, attempt)
	if attempt == "" or redis.call("EXISTS", task) == 0 then
		return
	end
	local all = (redis.call("HGET", task, "codex:attempts") or "") .. attempt .. "\n"
	while #all > 65536 do
		all = all:gsub("^[^\n]*\n", "", 1)
	end
	redis.call("HSET", task, "codex:attempts", all)
end
`

// recordRescue begins the scripts that open a run or a range: recordRescue(task, lost, owner, now, range) adds to the run's task, if it still
// is there, that the owner took over from a lost one. The range is nil if that was the run. Of many rescues the last ones stay: about a
// hundred.
const recordRescue = `
local function recordRescue(task, lost, owner, now, range)
	if redis.call("EXISTS", task) == 0 then
		return
	end
	local rescue = '{"at":' .. now .. (range and ',"range":' .. range or "") ..
		',"lost":' .. cjson.encode(lost:match(" (.*)") or "") .. ',"worker":' .. cjson.encode(owner:match(" (.*)") or "") .. "}\n"
	local all = (redis.call("HGET", task, "codex:rescues") or "") .. rescue
	while #all > 16384 do
		all = all:gsub("^[^\n]*\n", "", 1)
	end
	redis.call("HSET", task, "codex:rescues", all)
end
`

// KEYS: task, list of entries, dropped, the noticeKeys. ARGV: attempt, started, ended (ms), entry or "", the endNotices. For a task that no attempt could open. It
// does nothing if the task is gone, or if it has recorded that before, and asynq has not.
var refuseScript = redis.NewScript(record + enter + noteEnd + `
if redis.call("EXISTS", KEYS[1]) == 0 or redis.call("HEXISTS", KEYS[1], "codex:ended") == 1 then
	return 1
end
record(KEYS[1], ARGV[1])
redis.call("HSET", KEYS[1], "codex:started", ARGV[2], "codex:ended", ARGV[3])
noteEnd(KEYS[4], KEYS[5], KEYS[6], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10])
if ARGV[4] == "" then
	return 1
end
return enterRun(KEYS[2], KEYS[3], KEYS[1], ARGV[4], ARGV[2], ARGV[3], ARGV[1])
`)

// RecordRefused records an attempt at a run that no attempt can be made at, because its payload is not valid. It adds the run's entry
// to the history.
func (j *Jobs) RecordRefused(ctx context.Context, id tasks.RunID, from Source, a EndedAttempt) error {
	keys := append([]string{j.keys.task(id)}, j.keys.entries(id.Job)...)
	entry := j.encodeEntry(j.runEntry(id, from, Entry{State: StateFailed, Attempt: a.Number, Error: shortened(a.Error)}))
	keys = append(keys, j.keys.noticeKeys(id.Job)...)
	args := append([]any{a.encode(), millis(a.Started), millis(a.Ended), entry}, endNotices(id, millis(a.Ended), a.Ended, a.Outcome, a.Error, nil)...)
	n, err := refuseScript.Run(ctx, j.rdb, keys, args...).Int()
	if err != nil {
		return fmt.Errorf("recording that %s was refused: %w", id, err)
	}
	j.entered(id.Job, n)
	return nil
}

// KEYS: run, ranges, asynq's task. ARGV: who retries it, TTL. Forgets a run that has failed, and remembers that it was retried by
// hand: so its next start is not its first one. The earlier attempts stay. Returns 0 if the run has not failed, or waits again.
var retryScript = redis.NewScript(`
if redis.call("HGET", KEYS[3], "state") ~= "archived" then
	return 0
end
redis.call("UNLINK", KEYS[1], KEYS[2])
redis.call("HSET", KEYS[1], "retried", 1)
redis.call("EXPIRE", KEYS[1], ARGV[2])
redis.call("HDEL", KEYS[3], "codex:started", "codex:ended", "codex:counts")
redis.call("HSET", KEYS[3], "codex:retried", ARGV[1])
return redis.call("HINCRBY", KEYS[3], "codex:retries", 1)
`)

// recordFields are the fields that readRecord reads.
var recordFields = []string{"codex:started", "codex:ended", "codex:attempts", "codex:counts", "codex:retried", "codex:rescues"}

// readRecord adds to the job what is recorded of it. What a process of the previous release has done is not.
func readRecord(job *Job, answer *redis.SliceCmd) {
	text := func(field int) string {
		if len(answer.Val()) <= field {
			return ""
		}
		value, _ := answer.Val()[field].(string)
		return value
	}
	at := func(field int) time.Time {
		ms, err := strconv.ParseInt(text(field), 10, 64)
		if err != nil {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	}
	for line := range strings.Lines(text(2)) {
		var a attemptLine
		if json.Unmarshal([]byte(line), &a) == nil {
			job.EndedAttempts = append(job.EndedAttempts, a.attempt())
		}
	}
	for line := range strings.Lines(text(5)) {
		var r rescueLine
		if json.Unmarshal([]byte(line), &r) == nil {
			job.Rescues = append(job.Rescues, r.rescue())
		}
	}
	var counts RecordCounts
	if json.Unmarshal([]byte(text(3)), &counts) == nil {
		job.Counts = &counts
	}
	var retried Trigger
	if json.Unmarshal([]byte(text(4)), &retried) == nil {
		job.TriggeredBy = retried
	}
	if !job.State.Ended() {
		return
	}
	if started := at(0); !started.IsZero() {
		job.Started = started
	}
	if ended := at(1); !ended.IsZero() {
		job.Ended = ended
		if n := len(job.EndedAttempts); n > 0 {
			job.Attempt = job.EndedAttempts[n-1].Number
		}
	}
}

// triggerOf returns who triggered a run, by its ID and the headers of its task.
func triggerOf(id tasks.RunID, headers map[string]string) Trigger {
	var by Trigger
	switch {
	case id.Scheduled():
		by.Kind = TriggeredByTick
	case json.Unmarshal([]byte(headers[triggerHeader]), &by) != nil: // the previous release has triggered it
		by = Trigger{}
	}
	return by
}
