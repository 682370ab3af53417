// Notices of what a team is told of: a run that failed for good, the next one that succeeded, many failed records, missed ticks. The
// script that ends a run adds the notice to a list in Redis, so a process that dies can lose none. A worker moves notices into the
// queue of notifications, see package notify.
//
// Nothing is written while no worker notifies. A worker that does says so with a mark for each job type, which outlives it: then the
// scripts of all processes know, whatever their own settings are.

package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// NotifyJob is the job type of notifications. It is in no Registry of a system: it has one of its own, see package notify.
	NotifyJob = "notify"
	// notifyMark is how long a mark outlives the last worker that notifies. So what happens without any is told when one is back.
	notifyMark = 24 * time.Hour
	// maxNoticeError is how much of an error a notice has, in bytes.
	maxNoticeError = 2 << 10
)

// The types of events.
const (
	EventRunFailed     = "run.failed"
	EventRunRecovered  = "run.recovered"
	EventRecordsFailed = "records.failed"
	EventTicksMissed   = "ticks.missed"
	EventTest          = "test"
)

// Event is what a notification tells.
type Event struct {
	// ID is the same each time that the event is sent. It is the ID of a run of NotifyJob.
	ID tasks.RunID
	// Type is one of the Event constants.
	Type string
	// At is when it happened.
	At time.Time
	// Data is the EventData as JSON.
	Data json.RawMessage
}

// EventData is what an event is about. Each type of event has some of the fields.
type EventData struct {
	// Job is the job type.
	Job string `json:"job,omitempty"`
	// JobID names the run.
	JobID string `json:"jobId,omitempty"`
	// Error is why the run failed.
	Error string `json:"error,omitempty"`
	// Counts is what the run did to its records, if that is known.
	Counts *RecordCounts `json:"counts,omitempty"`
	// ErrorRate is the share of the records that failed, from 0 to 1.
	ErrorRate float64 `json:"errorRate,omitempty"`
	// Schedule is the schedule whose ticks are missed, as an interval or a cron expression.
	Schedule string `json:"schedule,omitempty"`
	// Missed is the first tick that was missed, and Previous the one before it, which was handled last.
	Missed   string `json:"missed,omitempty"`
	Previous string `json:"previous,omitempty"`
}

// notice is an Event as Redis has it in a list.
type notice struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	At   int64           `json:"at"` // ms
	Data json.RawMessage `json:"data"`
}

// newNotice returns a notice as Redis has it. Notices with the same parts are the same event. The reference time is that of the event's
// ID.
func newNotice(kind string, reference, at time.Time, data EventData, parts ...string) string {
	named := sha256.Sum256([]byte(strings.Join(append(parts, kind), "\n")))
	id := tasks.TickID(NotifyJob, reference)
	id.Suffix = hex.EncodeToString(named[:8])
	encoded, _ := json.Marshal(data) // it has no types that can fail
	text, _ := json.Marshal(notice{id.String(), kind, at.UnixMilli(), encoded})
	return string(text)
}

// note begins the scripts that add notices: note(mark, list, text, ttl) adds one, if a worker notifies.
const note = `
local function note(mark, list, text, ttl)
	if text == "" or redis.call("EXISTS", mark) == 0 then
		return
	end
	redis.call("RPUSH", list, text)
	redis.call("LTRIM", list, -1000, -1) -- the latest ones
	redis.call("EXPIRE", list, ttl)
end
`

// noteEnd begins the scripts that end a run: noteEnd(keys, args) adds the notices of the end. The keys are those of noticeKeys, and the
// arguments those of endNotices.
const noteEnd = note + `
local function noteEnd(mark, list, failing, outcome, failed, recovered, records, share, ttl)
	local rate = redis.call("GET", mark)
	if not rate or outcome == "" then
		return
	end
	if outcome == "failed" then
		note(mark, list, failed, ttl)
		redis.call("SET", failing, 1, "EX", ttl)
	elseif redis.call("DEL", failing) == 1 then
		note(mark, list, recovered, ttl)
	end
	if rate ~= "" and tonumber(share) > 0 and tonumber(share) >= tonumber(rate) then
		note(mark, list, records, ttl)
	end
end
`

// noticeSeconds is how long notices wait for a worker that notifies. It is also how long a job type's last run is remembered as failed.
const noticeSeconds = int(30 * 24 * time.Hour / time.Second)

// noticeKeys are the keys of noteEnd.
func (k keys) noticeKeys(job string) []string {
	return []string{k.notifies(job), k.notices(job), k.failing(job)}
}

// endNotices returns the arguments of noteEnd for the end of a run: how it ended, the notices of the three events that this can be, and
// the share of its records that failed. A cancelled run is no event. Number tells the ends of the run apart: it has one more with each
// retry by hand.
func endNotices(id tasks.RunID, number string, ended time.Time, outcome Outcome, reason string, counts *RecordCounts) []any {
	if outcome != OutcomeCompleted && outcome != OutcomeFailed {
		return []any{"", "", "", "", "0", noticeSeconds}
	}
	data := EventData{Job: id.Job, JobID: id.String(), Counts: counts}
	if counts != nil && counts.Processed > 0 {
		data.ErrorRate = float64(counts.Failed) / float64(counts.Processed)
	}
	of := func(kind string) string {
		return newNotice(kind, id.Reference, ended, data, id.String(), number)
	}
	recovered := of(EventRunRecovered)
	if data.Error = reason; len(reason) > maxNoticeError {
		data.Error = strings.ToValidUTF8(reason[:maxNoticeError], "") + "…"
	}
	return []any{
		string(outcome), of(EventRunFailed), recovered, of(EventRecordsFailed), strconv.FormatFloat(data.ErrorRate, 'g', -1, 64), noticeSeconds,
	}
}

// Notify says that a worker notifies of the job types' events, and from which share of failed records on, 0 for none. It must be said
// again, as Redis can lose it.
func (j *Jobs) Notify(ctx context.Context, errorRate float64) error {
	rate := ""
	if errorRate > 0 {
		rate = strconv.FormatFloat(errorRate, 'g', -1, 64)
	}
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, job := range j.registry.Names() {
			p.Set(ctx, j.keys.notifies(job), rate, notifyMark)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("saying that this worker notifies: %w", err)
	}
	return nil
}

// Notifies reports whether a worker notifies, or has until a day ago.
func (j *Jobs) Notifies(ctx context.Context) (bool, error) {
	n, err := j.rdb.Exists(ctx, j.keys.notifies(j.registry.Names()[0])).Result()
	if err != nil {
		return false, fmt.Errorf("looking whether a worker notifies: %w", err)
	}
	return n > 0, nil
}

// noticePage is how many notices of a job type are moved at once.
const noticePage = 100

// MoveNotices moves the notices of all job types into the queue of notifications, which is that of the other Jobs, oldest first. Several
// processes can do so at once: an event has one notification as long as the queue knows of it. It returns how many it has moved.
func (j *Jobs) MoveNotices(ctx context.Context, queue *Jobs) (moved int, err error) {
	var lists []*redis.StringSliceCmd
	names := j.registry.Names()
	_, err = j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, job := range names {
			lists = append(lists, p.LRange(ctx, j.keys.notices(job), 0, noticePage-1))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("looking for notices: %w", err)
	}
	for i, list := range lists {
		for _, text := range list.Val() {
			event, err := readNotice(text)
			if err != nil {
				j.log.Warn("A notice is not understood and dropped", "job", names[i], "error", err)
			} else if _, err = queue.EnqueueEvent(ctx, event); err != nil {
				return moved, err
			}
			if err := j.rdb.LRem(ctx, j.keys.notices(names[i]), 1, text).Err(); err != nil {
				return moved, fmt.Errorf("removing a notice: %w", err)
			}
			moved++
		}
	}
	return moved, nil
}

func readNotice(text string) (Event, error) {
	var n notice
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return Event{}, err
	}
	id, err := tasks.ParseRunID(n.ID)
	if err == nil && id.Job != NotifyJob {
		err = errors.New("it has the ID of another job type")
	}
	return Event{id, n.Type, time.UnixMilli(n.At).UTC(), n.Data}, err
}

// EnqueueEvent enqueues the notification of an event. The job types must be those of package notify. It returns false and no error if
// it is in the queue already, or was and is still known.
func (j *Jobs) EnqueueEvent(ctx context.Context, e Event) (bool, error) {
	def, known := j.registry.Lookup(NotifyJob)
	if !known {
		return false, errors.New("this queue is not that of notifications")
	}
	payload, err := def.EncodePayload(&Notification{Type: e.Type, Timestamp: e.At.UTC().Format(tasks.TimestampLayout), Data: e.Data})
	if err != nil {
		return false, err
	}
	return j.enqueueRun(ctx, def, e.ID, payload, Trigger{Kind: TriggeredByAPI})
}

// Notification is the body of a notification, and the payload of its run.
type Notification struct {
	Type      string          `json:"type" allowed:"the type of an event"`
	Timestamp string          `json:"timestamp" allowed:"an instant"`
	Data      json.RawMessage `json:"data" allowed:"what the event is about"`
}

// UniqueKey implements tasks.Payload.
func (*Notification) UniqueKey() string { return "" }

// Validate implements tasks.Payload.
func (*Notification) Validate() error { return nil }
