package jobs_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

const historyKey = "codex-jobs:{user-sync}:history"

// What an older release has written, a newer one must read: so the text is a contract.
func TestEntryAsJSON(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_800_000_000_123).UTC()
	for name, c := range map[string]struct {
		entry jobs.Entry
		text  string
	}{
		"a run": {
			jobs.Entry{
				ID: "1799999999000:user-sync:abcdefgh", Kind: jobs.EntryRun, Job: "user-sync", At: at, By: jobs.Trigger{Kind: "key", Key: "ops"},
				State: jobs.StateFailed, Data: json.RawMessage(`{"syncType":"full"}`), Started: at.Add(-time.Second), Attempt: 2, Attempts: 3,
				Error: "no", EndedAttempts: []jobs.EndedAttempt{{
					Number: 1, Started: at.Add(-time.Second).Local(), Ended: at.Local(), Worker: "w", Outcome: jobs.OutcomeFailed, Error: "no",
				}},
				Counts: &jobs.RecordCounts{Processed: 3, Updated: 2, Failed: 1}, Result: json.RawMessage(`{"n":12345678901234567890}`),
				FailedRecords: []jobs.FailedRecord{{ID: "64", Name: "ada", Reason: "bad"}}, RangesTotal: 7, TraceID: "0af7651916cd43dd8448eb211c80319c",
				Ranges: []jobs.EndedRange{{
					Index: 0, Worker: "w", Started: at.Add(-time.Second), Ended: at, Outcome: jobs.OutcomeFailed,
					Counts: &jobs.RecordCounts{Processed: 3, Updated: 2, Failed: 1}, Error: "no",
				}},
			},
			`{"id":"1799999999000:user-sync:abcdefgh","kind":"run","job":"user-sync","at":1800000000123,"by":{"kind":"key","key":"ops"},` +
				`"state":"failed","data":{"syncType":"full"},"started":1799999999123,"attempt":2,"attempts":3,"error":"no",` +
				`"endedAttempts":[{"number":1,"started":1799999999123,"ended":1800000000123,"worker":"w","outcome":"failed","error":"no"}],` +
				`"counts":{"processed":3,"updated":2,"failed":1},"result":{"n":12345678901234567890},` +
				`"failedRecords":[{"id":"64","name":"ada","reason":"bad"}],` +
				`"ranges":[{"index":0,"worker":"w","started":1799999999123,"ended":1800000000123,"outcome":"failed",` +
				`"counts":{"processed":3,"updated":2,"failed":1},"error":"no"}],` +
				`"rangesTotal":7,"traceId":"0af7651916cd43dd8448eb211c80319c"}`,
		},
		"a cleanup": {
			jobs.Entry{
				ID: "1800000000123:user-sync:cleanup:abcdefgh", Kind: jobs.EntryCleanup, Job: "user-sync", At: at, By: jobs.Trigger{Kind: "api"},
				Removed: &jobs.Removed{Failed: 2},
			},
			`{"id":"1800000000123:user-sync:cleanup:abcdefgh","kind":"cleanup","job":"user-sync","at":1800000000123,"by":{"kind":"api"},` +
				`"removed":{"completed":0,"failed":2}}`,
		},
	} {
		text, err := json.Marshal(c.entry)
		if err != nil || string(text) != c.text {
			t.Errorf("%s is %s, %v; want %s", name, text, err, c.text)
		}
		var back jobs.Entry
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, c.entry) {
			t.Errorf("%s came back as %+v, %v; want %+v", name, back, err, c.entry)
		}
	}
}

func TestListOfEntries(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	list, err := b.Entries(ctx, b.def, 10)
	if err != nil || len(list) != 0 {
		t.Errorf("an empty list is %v, %v", list, err)
	}
	if n, err := b.DroppedEntries(ctx, b.def); n != 0 || err != nil {
		t.Errorf("%d entries were dropped, %v; want none", n, err)
	}
	texts := []any{"nonsense", "{}"}
	for i := range 4 {
		texts = append(texts, `{"entry":{"id":"`+strconv.Itoa(i)+`"},"at":5,"started":3,"retried":{"kind":"retry"},"attempts":[{"number":7}]}`)
	}
	if err := b.rdb.RPush(ctx, historyKey, append(texts, texts[5])...).Err(); err != nil { // the last one twice
		t.Fatal(err)
	}
	if list, err = b.Entries(ctx, b.def, 4); err != nil || len(list) != 4 {
		t.Fatalf("the oldest four are %v, %v", list, err)
	}
	for i, e := range list[:2] {
		if e.Err == nil {
			t.Errorf("text %d is no entry, and has no error", i)
		}
	}
	want := jobs.Entry{
		ID: "1", At: time.UnixMilli(5).UTC(), Started: time.UnixMilli(3).UTC(), By: jobs.Trigger{Kind: "retry"},
		Attempt: 7, EndedAttempts: []jobs.EndedAttempt{{Number: 7, Started: time.UnixMilli(0), Ended: time.UnixMilli(0)}},
	}
	if e := list[3]; e.Err != nil || !reflect.DeepEqual(e.Entry, want) {
		t.Errorf("an entry is %+v, %v; want %+v", e.Entry, e.Err, want)
	}

	// Another process can have removed them already.
	for range 2 {
		if err := b.RemoveEntries(ctx, b.def, list); err != nil {
			t.Fatal(err)
		}
	}
	left, err := b.Entries(ctx, b.def, 10)
	if err != nil || len(left) != 3 || left[0].Entry.ID != "2" || left[2].Entry.ID != "3" {
		t.Errorf("left are %v, %v; want 2, 3 and 3", left, err)
	}
	if err := b.RemoveEntries(ctx, b.def, nil); err != nil {
		t.Errorf("removing none: %v", err)
	}
}
