package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// The history: what has ended, and what people did. It outlives the jobs that the server lists.

// The values of HistoryEntry.Kind.
const (
	// HistoryRun is for a job that has ended.
	HistoryRun = "run"
	// HistoryPause is for a job type that was paused.
	HistoryPause = "pause"
	// HistoryResume is for a job type that was resumed.
	HistoryResume = "resume"
	// HistoryCleanup is for a removal of jobs that had ended.
	HistoryCleanup = "cleanup"
	// HistoryCancel is for an active job that was told to stop.
	HistoryCancel = "cancel"
)

// HistoryKinds are the kinds of entries.
func HistoryKinds() []string {
	return []string{HistoryRun, HistoryPause, HistoryResume, HistoryCleanup, HistoryCancel}
}

// HistoryStates are the states of the jobs in the history. A job is StateRemoved if it was cancelled while it waited.
func HistoryStates() []State {
	return []State{StateCompleted, StateFailed, StateCancelled, StateRemoved}
}

// HistoryEntry is a job that has ended, or an action. A list leaves out what is said to be a detail.
type HistoryEntry struct {
	// ID is the job's ID; an action has one of its own.
	ID string `json:"id"`
	// Kind is one of HistoryKinds.
	Kind string `json:"kind"`
	// Job is the job type, such as user-sync.
	Job string `json:"job"`
	// At is when the job ended, or when the action was done.
	At Time `json:"at"`
	// By says who or what triggered the job, retried it last, or did the action; nil if that is not known.
	By *TriggeredBy `json:"by,omitempty"`

	// Of a job:

	// State is one of HistoryStates.
	State State `json:"state,omitempty"`
	// Data is the payload, a JSON object. A detail.
	Data json.RawMessage `json:"data,omitempty"`
	// StartedAt is when it began; after a retry, when that began. It is zero if the job never began.
	StartedAt Time `json:"startedAt,omitzero"`
	// Duration is the time from StartedAt to At, in milliseconds; nil if the job never began.
	Duration *int64 `json:"duration,omitempty"`
	// Attempt is the last attempt, counted from 1; 0 if the job never began.
	Attempt int `json:"attempt,omitempty"`
	// Attempts is how many the job had.
	Attempts int `json:"attempts,omitempty"`
	// Error is why the last attempt failed; "" if none has. A list has the beginning of a long one.
	Error string `json:"error,omitempty"`
	// EndedAttempts are the attempts, oldest first, with those before a retry. A detail.
	EndedAttempts []EndedAttempt `json:"endedAttempts,omitempty"`
	// Rescues say which workers were lost during the job, and which went on, oldest first. A detail.
	Rescues []Rescue `json:"rescues,omitempty"`
	// Counts is what the job has done to its records; nil if that is not known.
	Counts *RecordCounts `json:"counts,omitempty"`
	// Result is the result of a completed job; see SyncResult. A detail.
	Result json.RawMessage `json:"result,omitempty"`
	// FailedRecords are the first 100 records that failed. A detail.
	FailedRecords []FailedRecord `json:"failedRecords,omitempty"`
	// Ranges are the first 1,000 ranges of a large run, in order. A detail.
	Ranges []EndedRange `json:"ranges,omitempty"`
	// RangesTotal is how many ranges the run had; 0 if workers did not share it.
	RangesTotal int `json:"rangesTotal,omitempty"`
	// TraceID is the ID of the last attempt's trace; "" without one.
	TraceID string `json:"traceId,omitempty"`

	// Of an action:

	// Target is the ID of the job that was cancelled.
	Target string `json:"target,omitempty"`
	// Removed is how many jobs a cleanup removed.
	Removed *RemovedJobs `json:"removed,omitempty"`
}

// FailedRecord is a record that failed in a run. The server's setting HISTORY_RECORDS says what of it is kept.
type FailedRecord struct {
	ID string `json:"id"`
	// Name is what people call the record; it can be "".
	Name string `json:"name,omitempty"`
	// Reason is why it failed, at most 300 bytes.
	Reason string `json:"reason"`
}

// EndedRange is a range of a large run that has ended.
type EndedRange struct {
	// Index counts from 0.
	Index int `json:"index"`
	// Worker is the ID of the worker that did it; "" if that is not known.
	Worker string `json:"worker,omitempty"`
	// StartedAt and EndedAt are when it began and ended; zero where that is not known.
	StartedAt Time `json:"startedAt,omitzero"`
	EndedAt   Time `json:"endedAt,omitzero"`
	// Outcome is "completed" or "failed".
	Outcome string `json:"outcome"`
	// Counts is what was done in the range; nil if that is not known.
	Counts *RecordCounts `json:"counts,omitempty"`
	// Error is why it failed; "" if it did not.
	Error string `json:"error,omitempty"`
}

// RemovedJobs is how many jobs a cleanup removed.
type RemovedJobs struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// HistoryPage is one page of the history, newest first.
type HistoryPage struct {
	Entries []HistoryEntry `json:"entries"`
	// Next is the cursor of the next page; "" after the last one.
	Next string `json:"next,omitempty"`
}

// HistoryFilter selects entries of the history. The zero value is the first page of all.
type HistoryFilter struct {
	// Job is a job type; "" is all of them.
	Job string
	// State is one of HistoryStates; "" is all of them, and actions.
	State State
	// Kind is one of HistoryKinds; "" is all of them.
	Kind string
	// From is the earliest time of an entry, and To the first one that is too late; zero for no limit.
	From, To time.Time
	// Text is in the ID, the error, or the ID or the name of a failed record, in upper or lower case.
	Text string
	// Limit is how many entries a page has at most, from 1 to 100; 0 is 20.
	Limit int
	// Cursor is the Next of the page before; "" is the first page.
	Cursor string
}

// History lists a page of the history. When the server keeps none, or is of a release without one, IsNotFound reports true of the
// error.
func (c *Client) History(ctx context.Context, f HistoryFilter) (HistoryPage, error) {
	var page HistoryPage
	query := url.Values{}
	set(query, "job", f.Job)
	set(query, "state", string(f.State))
	set(query, "kind", f.Kind)
	set(query, "text", f.Text)
	set(query, "cursor", f.Cursor)
	if !f.From.IsZero() {
		query.Set("from", f.From.UTC().Format(timestampLayout))
	}
	if !f.To.IsZero() {
		query.Set("to", f.To.UTC().Format(timestampLayout))
	}
	if f.Limit != 0 {
		query.Set("limit", strconv.Itoa(f.Limit))
	}
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"history"}, query: query}, &page); err != nil {
		return page, fmt.Errorf("listing the history: %w", err)
	}
	return page, nil
}

// AllHistory lists all entries that the filter selects from its cursor on, page by page. After an error it ends.
func (c *Client) AllHistory(ctx context.Context, f HistoryFilter) iter.Seq2[HistoryEntry, error] {
	return func(yield func(HistoryEntry, error) bool) {
		for {
			page, err := c.History(ctx, f)
			if err != nil {
				yield(HistoryEntry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			f.Cursor = page.Next
		}
	}
}

// HistoryEntry asks for one entry, with its details. When there is none, or no longer, IsNotFound reports true of the error.
func (c *Client) HistoryEntry(ctx context.Context, id string) (HistoryEntry, error) {
	var e HistoryEntry
	if _, err := c.do(ctx, call{method: http.MethodGet, path: []string{"history", id}}, &e); err != nil {
		return HistoryEntry{}, fmt.Errorf("asking for entry %s of the history: %w", id, err)
	}
	return e, nil
}
