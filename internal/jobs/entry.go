// Entries of the history. The script that ends a run adds what is known of it to a list in Redis, and a script that pauses,
// resumes, cleans up or cancels adds what was done. A worker moves the entries on to where they stay, see package history. So the
// history outlives Redis, and no process that dies can lose an entry or make one up.
//
// A text in the list is a JSON object. Go writes its "entry". The script adds what only Redis knows of a run at that moment:
//
//	at        when the run ended (ms), later than in the former entry of the same run
//	started   when the run began (ms), or null
//	retried   who retried the run by hand last, or null
//	attempts  the attempts that have ended
//	rescues   the rescues of the run and of its ranges

package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// MaxEntries is how many entries the list of a job type holds. Beyond that the oldest ones are dropped, and counted.
	MaxEntries = 10_000
	// MaxEntryRanges is how many ranges an entry lists.
	MaxEntryRanges = 1_000
	// MaxFailedRecords is how many failed records an entry lists.
	MaxFailedRecords = 100
)

// The values of Entry.Kind.
const (
	EntryRun     = "run"
	EntryPause   = "pause"
	EntryResume  = "resume"
	EntryCleanup = "cleanup"
	EntryCancel  = "cancel"
)

// StateRemoved is the state of an entry whose run was cancelled while it waited. Redis knows nothing of such a run any more.
const StateRemoved State = "removed"

// Entry is what the history keeps of a run that has ended, or of an action.
type Entry struct {
	// ID is the run's ID. Of an action it is "<ms>:<job type>:<kind>:<8 random letters and digits>".
	ID string
	// Kind is EntryRun, or which action it was.
	Kind string
	// Job is the job type's name.
	Job string
	// At is when the run ended, or when the action was done, in whole milliseconds. A run that was retried by hand has another
	// entry, with a later time.
	At time.Time
	// By says who triggered the run, or retried it by hand last, or did the action.
	By Trigger

	// Of a run:

	// State is StateCompleted, StateFailed, StateCancelled or StateRemoved.
	State State
	// Data is the fields of the run's payload as JSON. It is nil if the payload is not valid.
	Data json.RawMessage
	// Started is when the first attempt began; after a retry by hand, that of the retry. It is zero if the run never began.
	Started time.Time
	// Attempt is the number of the last attempt, and Attempts how many the run has. Attempt is 0 if the run never began.
	Attempt, Attempts int
	// Error is why the run failed, or why its last attempt did. It is "" if none failed.
	Error string
	// EndedAttempts are the attempts that have ended, those before a retry by hand included, oldest first.
	EndedAttempts []EndedAttempt
	// Rescues say which workers were lost during the run, and which went on, oldest first.
	Rescues []Rescue
	// Counts is what the run has done. It is nil if that is not known.
	Counts *RecordCounts
	// Result is the result of a completed run as JSON.
	Result json.RawMessage
	// FailedRecords are the first records that failed, at most MaxFailedRecords.
	FailedRecords []FailedRecord
	// Ranges are the ranges of a split run that have ended, in their order, at most MaxEntryRanges. RangesTotal is into how many
	// the run was split. It is 0 if it was not.
	Ranges      []EndedRange
	RangesTotal int
	// TraceID is the ID of the trace that the last attempt is part of, or "".
	TraceID string

	// Of an action:

	// Target is the ID of the run that was cancelled.
	Target string
	// Removed is what a cleanup removed.
	Removed *Removed
}

// FailedRecord is a record whose update failed.
type FailedRecord struct {
	// ID is the record's identifier, as the log writes it.
	ID string `json:"id"`
	// Name is what people call the record. It can be "".
	Name string `json:"name,omitempty"`
	// Reason is why it failed, at most 300 bytes.
	Reason string `json:"reason"`
}

// EndedRange is a range of a split run that has ended.
type EndedRange struct {
	// Index counts from 0.
	Index int
	// Worker is the ID of the worker that made the last attempt at it. It is "" if a worker of an older release did.
	Worker string
	// Started is when the first attempt at the range began, and Ended when it ended. They are zero if they are not known.
	Started, Ended time.Time
	// Outcome is OutcomeCompleted or OutcomeFailed.
	Outcome Outcome
	// Counts is what was done in the range. It is nil if that is not known.
	Counts *RecordCounts
	// Error is why the range failed.
	Error string
}

// entryJSON is an Entry as JSON. Times are in ms, and 0 if they are zero.
type entryJSON struct {
	ID            string          `json:"id"`
	Kind          string          `json:"kind"`
	Job           string          `json:"job"`
	At            int64           `json:"at"`
	By            Trigger         `json:"by"`
	State         State           `json:"state,omitempty"`
	Data          json.RawMessage `json:"data,omitempty"`
	Started       int64           `json:"started,omitempty"`
	Attempt       int             `json:"attempt,omitempty"`
	Attempts      int             `json:"attempts,omitempty"`
	Error         string          `json:"error,omitempty"`
	EndedAttempts []attemptLine   `json:"endedAttempts,omitempty"`
	Rescues       []rescueLine    `json:"rescues,omitempty"`
	Counts        *RecordCounts   `json:"counts,omitempty"`
	Result        json.RawMessage `json:"result,omitempty"`
	FailedRecords []FailedRecord  `json:"failedRecords,omitempty"`
	Ranges        []rangeJSON     `json:"ranges,omitempty"`
	RangesTotal   int             `json:"rangesTotal,omitempty"`
	TraceID       string          `json:"traceId,omitempty"`
	Target        string          `json:"target,omitempty"`
	Removed       *removedJSON    `json:"removed,omitempty"`
}

type rangeJSON struct {
	Index   int           `json:"index"`
	Worker  string        `json:"worker,omitempty"`
	Started int64         `json:"started,omitempty"`
	Ended   int64         `json:"ended,omitempty"`
	Outcome Outcome       `json:"outcome"`
	Counts  *RecordCounts `json:"counts,omitempty"`
	Error   string        `json:"error,omitempty"`
}

type removedJSON struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// MarshalJSON implements json.Marshaler.
func (e Entry) MarshalJSON() ([]byte, error) {
	x := entryJSON{
		ID: e.ID, Kind: e.Kind, Job: e.Job, At: toMillis(e.At), By: e.By, State: e.State, Data: e.Data, Started: toMillis(e.Started),
		Attempt: e.Attempt, Attempts: e.Attempts, Error: e.Error, Counts: e.Counts, Result: e.Result, FailedRecords: e.FailedRecords,
		RangesTotal: e.RangesTotal, TraceID: e.TraceID, Target: e.Target, Removed: (*removedJSON)(e.Removed),
	}
	for _, a := range e.EndedAttempts {
		x.EndedAttempts = append(x.EndedAttempts, a.line())
	}
	for _, r := range e.Rescues {
		x.Rescues = append(x.Rescues, r.line())
	}
	for _, r := range e.Ranges {
		x.Ranges = append(x.Ranges, rangeJSON{r.Index, r.Worker, toMillis(r.Started), toMillis(r.Ended), r.Outcome, r.Counts, r.Error})
	}
	return json.Marshal(x)
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *Entry) UnmarshalJSON(data []byte) error {
	var x entryJSON
	if err := json.Unmarshal(data, &x); err != nil {
		return err
	}
	*e = Entry{
		ID: x.ID, Kind: x.Kind, Job: x.Job, At: fromMillis(x.At), By: x.By, State: x.State, Data: x.Data, Started: fromMillis(x.Started),
		Attempt: x.Attempt, Attempts: x.Attempts, Error: x.Error, Counts: x.Counts, Result: x.Result, FailedRecords: x.FailedRecords,
		RangesTotal: x.RangesTotal, TraceID: x.TraceID, Target: x.Target, Removed: (*Removed)(x.Removed),
	}
	for _, a := range x.EndedAttempts {
		e.EndedAttempts = append(e.EndedAttempts, a.attempt())
	}
	for _, r := range x.Rescues {
		e.Rescues = append(e.Rescues, r.rescue())
	}
	for _, r := range x.Ranges {
		e.Ranges = append(e.Ranges, EndedRange{r.Index, r.Worker, fromMillis(r.Started), fromMillis(r.Ended), r.Outcome, r.Counts, r.Error})
	}
	return nil
}

// toMillis returns a time in ms, and 0 for the zero time.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis is the inverse of toMillis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// newAction returns the entry of an action at the present time.
func newAction(kind, job string, by Trigger) Entry {
	now := time.Now()
	id := fmt.Sprintf("%d:%s:%s:%s", now.UnixMilli(), job, kind, strings.ToLower(rand.Text()[:8]))
	return Entry{ID: id, Kind: kind, Job: job, At: fromMillis(now.UnixMilli()), By: by}
}

// enter begins the scripts that add entries. enter(list, dropped, text) adds a text to the list, and drops the oldest ones of a
// full one. It returns 2 if it has dropped any, and 1 otherwise. enterRun(list, dropped, task, entry, started, at, attempt) does that
// with the entry of a run, of which the caller has added the last attempt to the task. If the task is gone, because its queue was deleted,
// that is the only attempt.
var enter = fmt.Sprintf(`
local function enter(list, dropped, text)
	local over = redis.call("RPUSH", list, text) - %d
	if over <= 0 then
		return 1
	end
	redis.call("LTRIM", list, over, -1)
	redis.call("INCRBY", dropped, over)
	return 2
end
local function enterRun(list, dropped, task, entry, started, at, attempt)
	local r = redis.call("HMGET", task, "codex:attempts", "codex:retried", "codex:entered", "codex:rescues")
	at = tonumber(at)
	if r[3] and tonumber(r[3]) >= at then
		at = tonumber(r[3]) + 1 -- the clock of another process has written that
	end
	at = string.format("%%.0f", at)
	if redis.call("EXISTS", task) == 1 then
		redis.call("HSET", task, "codex:entered", at)
	end
	local function lines(text)
		return (text:gsub("\n$", ""):gsub("\n", ","))
	end
	return enter(list, dropped, '{"entry":' .. entry .. ',"at":' .. at .. ',"started":' .. (started or "null") ..
		',"retried":' .. (r[2] or "null") .. ',"attempts":[' .. lines(r[1] or attempt) .. '],"rescues":[' .. lines(r[4] or "") .. ']}')
end
`, MaxEntries)

const (
	// maxReadRanges is of how many ranges a run reads what they have done as it ends, which must not take long.
	maxReadRanges = 20 * rangesPage
	// enterTimeout bounds adding the entry of a cleanup.
	enterTimeout = 2 * time.Second
	// dropInterval is the time between two warnings that entries are dropped.
	dropInterval = 10 * time.Minute
)

// KEYS: list of entries, dropped. ARGV: entry.
var enterScript = redis.NewScript(enter + `return enter(KEYS[1], KEYS[2], '{"entry":' .. ARGV[1] .. '}')`)

// enter adds the entry of an action that no script did.
func (j *Jobs) enter(ctx context.Context, e Entry) error {
	if !j.history {
		return nil
	}
	n, err := enterScript.Run(ctx, j.rdb, j.keys.entries(e.Job), j.encodeEntry(e)).Int()
	if err != nil {
		return fmt.Errorf("adding to the history of %s: %w", e.Job, err)
	}
	j.entered(e.Job, n)
	return nil
}

// encodeEntry returns an entry as scripts want it: "" if there is no history.
func (j *Jobs) encodeEntry(e Entry) string {
	if !j.history {
		return ""
	}
	encoded, err := json.Marshal(e)
	if err != nil { // its JSON is ours, asynq's or the encoder's
		j.log.Error("An entry of the history does not encode", "jobId", e.ID, "error", err)
		return ""
	}
	return string(encoded)
}

// entered logs a warning if the answer of a script says that the list of entries is full.
func (j *Jobs) entered(job string, answer int) {
	if answer < 2 {
		return
	}
	now := time.Now().UnixNano()
	if last := j.warnedDrop.Load(); now-last > int64(dropInterval) && j.warnedDrop.CompareAndSwap(last, now) {
		j.log.Warn("The history loses entries: no worker has moved them on for long, and the list in Redis is full", "job", job,
			"holds", MaxEntries)
	}
}

// Source is what a run's entry says of its task.
type Source struct {
	// Payload and Headers are the task's.
	Payload []byte
	Headers map[string]string
	// TraceID is the ID of the trace that the attempt is part of. With "" it is that of the headers.
	TraceID string
}

// runEntry adds to the entry of a run what all have.
func (j *Jobs) runEntry(id tasks.RunID, from Source, e Entry) Entry {
	e.ID, e.Kind, e.Job, e.By, e.TraceID = id.String(), EntryRun, id.Job, triggerOf(id, from.Headers), from.TraceID
	if def, known := j.registry.Lookup(id.Job); known {
		e.Attempts = def.Attempts
		if data := def.PayloadFields(from.Payload); string(data) != "null" {
			e.Data = data
		}
	}
	if e.TraceID == "" {
		if span := trace.SpanContextFromContext(telemetry.ContinueTrace(context.Background(), from.Headers)); span.HasTraceID() {
			e.TraceID = span.TraceID().String()
		}
	}
	return e
}

// waitingEntry returns the encoded entry of a run that ends while it waits.
func (j *Jobs) waitingEntry(ctx context.Context, id tasks.RunID, info *asynq.TaskInfo, e Entry) (string, error) {
	s := &RunState{
		jobs: j, rdb: j.rdb, ranges: j.keys.ranges(id), id: id, Source: Source{Payload: info.Payload, Headers: info.Headers},
	}
	return s.entry(ctx, e)
}

// entry completes the entry of a run that ends, and encodes it. It reads what the run's ranges have done.
func (s *RunState) entry(ctx context.Context, e Entry) (string, error) {
	if !s.jobs.history {
		return "", nil
	}
	e = s.jobs.runEntry(s.id, s.Source, e)
	e.Counts, e.FailedRecords = s.Counts, slices.Clone(s.FailedRecords)
	if s.Attempt != nil {
		e.Attempt = s.Attempt.Number
	}
	if err := s.addRanges(ctx, &e); err != nil {
		return "", err
	}
	return s.jobs.encodeEntry(e), nil
}

// addRanges adds to the entry of a split run what its ranges have done.
func (s *RunState) addRanges(ctx context.Context, e *Entry) error {
	split, err := s.Split(ctx)
	if err != nil || split.Ranges == 0 {
		return err
	}
	e.RangesTotal = split.Ranges
	sum, known := RecordCounts{}, true
	if split.Ranges > maxReadRanges {
		known = false
	}
	for from := 0; from < min(split.Ranges, maxReadRanges); from += rangesPage {
		ended, failed, err := s.endedRanges(ctx, from)
		if err != nil {
			return err
		}
		e.Ranges = append(e.Ranges, ended[:min(len(ended), MaxEntryRanges-len(e.Ranges))]...)
		e.FailedRecords = append(e.FailedRecords, failed[:min(len(failed), MaxFailedRecords-len(e.FailedRecords))]...)
		for _, r := range ended {
			if r.Counts == nil { // a worker of an older release ended it
				known = false
				continue
			}
			sum.Processed += r.Counts.Processed
			sum.Updated += r.Counts.Updated
			sum.Failed += r.Counts.Failed
		}
	}
	if e.Counts == nil && known && len(e.Ranges) > 0 {
		e.Counts = &sum // the run ended before it added that up itself
	}
	return nil
}

// listedJSON is a text in the list.
type listedJSON struct {
	Entry    *Entry        `json:"entry"`
	At       int64         `json:"at"`
	Started  int64         `json:"started"`
	Retried  *Trigger      `json:"retried"`
	Attempts []attemptLine `json:"attempts"`
	Rescues  []rescueLine  `json:"rescues"`
}

// Listed is one text of a job type's list.
type Listed struct {
	// Entry is the entry that the text is. If it is none, Err says why, and nothing can be done with it but to remove it.
	Entry Entry
	Err   error

	text string
}

// readListed reads a text of the list.
func readListed(text string) Listed {
	var x listedJSON
	err := json.Unmarshal([]byte(text), &x)
	if err == nil && (x.Entry == nil || x.Entry.ID == "") {
		err = errors.New("it has no id")
	}
	if err != nil {
		return Listed{text: text, Err: fmt.Errorf("reading an entry of the history: %w", err)}
	}
	e := *x.Entry
	if x.At != 0 {
		e.At = fromMillis(x.At)
	}
	if x.Started != 0 {
		e.Started = fromMillis(x.Started)
	}
	if x.Retried != nil {
		e.By = *x.Retried
	}
	for _, a := range x.Attempts {
		e.EndedAttempts = append(e.EndedAttempts, a.attempt())
	}
	for _, r := range x.Rescues {
		e.Rescues = append(e.Rescues, r.rescue())
	}
	if n := len(e.EndedAttempts); e.Attempt == 0 && !e.Started.IsZero() && n > 0 { // it ended while it waited for its next attempt
		e.Attempt = e.EndedAttempts[n-1].Number
	}
	return Listed{Entry: e, text: text}
}

// Entries returns the oldest n entries of the job type's list, or fewer.
func (j *Jobs) Entries(ctx context.Context, def tasks.Definition, n int) ([]Listed, error) {
	texts, err := j.rdb.LRange(ctx, j.keys.history(def.Name), 0, int64(n)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the entries of %s: %w", def.Name, err)
	}
	list := make([]Listed, len(texts))
	for i, text := range texts {
		list[i] = readListed(text)
	}
	return list, nil
}

// RemoveEntries removes these entries from the job type's list, and no others. One that is not there any more is no error.
func (j *Jobs) RemoveEntries(ctx context.Context, def tasks.Definition, entries []Listed) error {
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, e := range entries {
			p.LRem(ctx, j.keys.history(def.Name), 1, e.text)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("removing entries of %s: %w", def.Name, err)
	}
	return nil
}

// countEntries returns how many entries are in the list of each job type, in the order of the registry, and how many were ever dropped.
func (j *Jobs) countEntries(ctx context.Context) (waiting, dropped []int64, err error) {
	var lengths []*redis.IntCmd
	var drops []*redis.StringCmd
	_, err = j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, def := range j.registry.All() {
			lengths, drops = append(lengths, p.LLen(ctx, j.keys.history(def.Name))), append(drops, p.Get(ctx, j.keys.dropped(def.Name)))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, fmt.Errorf("counting the entries of the history: %w", err)
	}
	for i, length := range lengths {
		n, _ := drops[i].Int64() // 0 if there is no such key
		waiting, dropped = append(waiting, length.Val()), append(dropped, n)
	}
	return waiting, dropped, nil
}

// DroppedEntries returns how many entries of the job type were ever dropped, because its list was full.
func (j *Jobs) DroppedEntries(ctx context.Context, def tasks.Definition) (int64, error) {
	n, err := j.rdb.Get(ctx, j.keys.dropped(def.Name)).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("reading how many entries of %s were dropped: %w", def.Name, err)
	}
	return n, nil
}
