package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// withHistory gives the API a history in a database of its own.
func withHistory(t testing.TB) (func(*api.Options), *history.Store, *faultproxy.Proxy) {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the tests with `make test`, which starts a throwaway server for them")
	}
	proxy, err := faultproxy.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	if uri, err = proxy.URI(uri); err != nil {
		t.Fatal(err)
	}
	client, err := mongodb.Connect(uri, slog.New(slog.DiscardHandler), func(o *options.ClientOptions) { o.SetHeartbeatInterval(500 * time.Millisecond) })
	if err != nil {
		t.Fatal(err)
	}
	store := history.NewStore(history.Options{
		Client: client, Database: "test_" + bson.NewObjectID().Hex(), Collection: "job_runs", Keep: 24 * time.Hour,
	})
	t.Cleanup(func() {
		if err := proxy.Heal(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, err := client.Collection(ctx, store.Database, store.Collection)
		if err == nil {
			err = c.Database().Drop(ctx)
		}
		if err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(o *api.Options) { o.History = store }, store, proxy
}

var historyTime = time.Date(2026, 11, 24, 4, 50, 30, 215_000_000, time.UTC)

// entries are one of each kind, newest first.
func entries() []jobs.Entry {
	ago := func(minutes int) time.Time { return historyTime.Add(-time.Duration(minutes) * time.Minute) }
	counts := &jobs.RecordCounts{Processed: 200, Updated: 199, Failed: 1}
	return []jobs.Entry{
		{
			ID: "1795495826751:user-sync:mq4z2etl", Kind: jobs.EntryRun, Job: "user-sync", At: ago(0), By: jobs.Trigger{Kind: jobs.TriggeredByRetry, Key: "ops", At: ago(1).UnixMilli()},
			State: jobs.StateCompleted, Data: json.RawMessage(`{"syncType":"full"}`), Started: ago(1), Attempt: 1, Attempts: 3, Counts: counts,
			EndedAttempts: []jobs.EndedAttempt{{Number: 1, Started: ago(1), Ended: ago(0), Worker: "host-1-x", Outcome: jobs.OutcomeCompleted}},
			Rescues:       []jobs.Rescue{{At: ago(1), Worker: "host-1-x"}, {At: ago(1), Range: new(1), Lost: "host-2-y", Worker: "host-1-x"}},
			Result:        json.RawMessage(`{"success":true,"usersProcessed":200,"usersUpdated":199,"errors":1,"duration":60000,"timestamp":"2026-11-24T04:50:30.215Z"}`),
			FailedRecords: []jobs.FailedRecord{{ID: "65a1", Name: "Ada", Reason: "no"}}, RangesTotal: 2, TraceID: "0af7651916cd43dd8448eb211c80319c",
			Ranges: []jobs.EndedRange{
				{Index: 0, Worker: "host-1-x", Started: ago(1), Ended: ago(0), Outcome: jobs.OutcomeCompleted, Counts: counts},
				{Index: 1, Outcome: jobs.OutcomeFailed, Error: "no"},
			},
		},
		{ID: "1795495826752:user-sync:pause:abcdefgh", Kind: jobs.EntryPause, Job: "user-sync", At: ago(2), By: jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "ops"}},
		{ID: "1795495826752:user-sync:resume:abcdefgh", Kind: jobs.EntryResume, Job: "user-sync", At: ago(3), By: jobs.Trigger{Kind: jobs.TriggeredByAPI}},
		{ID: "1795495826752:user-sync:cleanup:abcdefgh", Kind: jobs.EntryCleanup, Job: "user-sync", At: ago(4), Removed: &jobs.Removed{Completed: 2}},
		{ID: "1795495826752:issue-sync:cancel:abcdefgh", Kind: jobs.EntryCancel, Job: "issue-sync", At: ago(5), Target: "1795495826000:issue-sync"},
		{
			ID: "1795495826000:issue-sync", Kind: jobs.EntryRun, Job: "issue-sync", At: ago(6), By: jobs.Trigger{Kind: jobs.TriggeredByTick},
			State: jobs.StateFailed, Data: json.RawMessage(`{"syncType":"incremental"}`), Attempt: 3, Attempts: 3, Error: "server selection timeout",
		},
		{ID: "1795495826000:gone-sync:abcdefgh", Kind: jobs.EntryRun, Job: "gone-sync", At: ago(7), State: jobs.StateRemoved, Data: json.RawMessage(`{}`)},
	}
}

func put(t *testing.T, store *history.Store, entries ...jobs.Entry) {
	t.Helper()
	if lost, err := store.Put(t.Context(), entries); err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
}

// historyIDs returns the IDs of a page, and its cursor of the next one.
func historyIDs(t *testing.T, a answer) (ids []string, next string) {
	t.Helper()
	var page struct {
		Data struct {
			Entries []struct{ ID string }
			Next    string
		}
	}
	if err := json.Unmarshal([]byte(a.text), &page); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s: %v", a.status, a.text, err)
	}
	for _, e := range page.Data.Entries {
		ids = append(ids, e.ID)
	}
	return ids, page.Data.Next
}

func TestHistory(t *testing.T) {
	t.Parallel()
	adjust, store, _ := withHistory(t)
	b := setup(t, adjust)
	all := entries()
	put(t, store, all...)
	id := func(indexes ...int) (ids []string) {
		for _, i := range indexes {
			ids = append(ids, all[i].ID)
		}
		return ids
	}
	for query, want := range map[string][]string{
		"":                                    id(0, 1, 2, 3, 4, 5, 6),
		"?job=all":                            id(0, 1, 2, 3, 4, 5, 6),
		"?job=issue-sync":                     id(4, 5),
		"?state=failed":                       id(5),
		"?state=removed":                      id(6),
		"?kind=run":                           id(0, 5, 6),
		"?kind=cleanup&job=user-sync":         id(3),
		"?kind=cancel&state=cancelled":        nil,
		"?from=2026-11-24T04:47:30.215Z":      id(0, 1, 2),
		"?to=2026-11-24T05:44:30.215%2B01:00": id(6),
		"?text=ADA":                           id(0),
		"?text=selection+time":                id(5),
		"?text=1795495826000":                 id(4, 5, 6),
		"?text=.":                             nil,
		"?limit=2":                            id(0, 1),
	} {
		if got, _ := historyIDs(t, b.get(t, "/history"+query)); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	var paged []string
	for cursor := ""; ; {
		ids, next := historyIDs(t, b.get(t, "/history?limit=3"+cursor))
		paged = append(paged, ids...)
		if next == "" {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
	if want := id(0, 1, 2, 3, 4, 5, 6); !slices.Equal(paged, want) {
		t.Errorf("by pages: %q, want %q", paged, want)
	}
	for _, e := range all { // each of which is compared with the description
		if a := b.get(t, "/history/"+e.ID); a.status != http.StatusOK || a.json(t)["data"].(map[string]any)["id"] != e.ID {
			t.Errorf("%s: %d %s", e.ID, a.status, a.text)
		}
	}
	whole := b.get(t, "/history/"+all[0].ID).json(t)["data"]
	want := `map[at:2026-11-24T04:50:30.215Z attempt:1 attempts:3 by:map[at:2026-11-24T04:49:30.215Z key:ops kind:retry] counts:map[failed:1 processed:200 updated:199] data:map[syncType:full] ` +
		`duration:60000 endedAttempts:[map[endedAt:2026-11-24T04:50:30.215Z number:1 outcome:completed startedAt:2026-11-24T04:49:30.215Z worker:host-1-x]] ` +
		`failedRecords:[map[id:65a1 name:Ada reason:no]] id:1795495826751:user-sync:mq4z2etl job:user-sync kind:run ` +
		`ranges:[map[counts:map[failed:1 processed:200 updated:199] endedAt:2026-11-24T04:50:30.215Z index:0 outcome:completed startedAt:2026-11-24T04:49:30.215Z worker:host-1-x] ` +
		`map[error:no index:1 outcome:failed]] rangesTotal:2 rescues:[map[at:2026-11-24T04:49:30.215Z worker:host-1-x] map[at:2026-11-24T04:49:30.215Z lostWorker:host-2-y range:1 worker:host-1-x]] ` +
		`result:map[duration:60000 errors:1 success:true timestamp:2026-11-24T04:50:30.215Z usersProcessed:200 usersUpdated:199] ` +
		`startedAt:2026-11-24T04:49:30.215Z state:completed traceId:0af7651916cd43dd8448eb211c80319c]`
	if got := fmt.Sprint(whole); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	refused(t, b.get(t, "/history/1795495826999:user-sync"), `there is no entry "1795495826999:user-sync" in the history`)
	refused(t, b.get(t, "/jobs/1795495826751:user-sync:mq4z2etl"), "see GET /jobs, and GET /history/1795495826751:user-sync:mq4z2etl if it has ended")
	undescribed := *b // the description cannot say what is no UTF-8
	undescribed.undescribed = true
	refused(t, undescribed.get(t, "/history?text=%ff"), "bytes of text in UTF-8")
	for query, message := range map[string]string{
		"job=users":                        `job was "users"; it must be "user-sync" or`,
		"state=active":                     `state was "active"; it must be "completed" or "failed" or "cancelled" or "removed"`,
		"kind=runs":                        `kind was "runs"; it must be "run" or`,
		"from=today":                       `from was "today"; it must be an instant in RFC 3339`,
		"cursor=x":                         `cursor was "x"; it must be the "next" of a page before`,
		"limit=101":                        `limit was "101"; it must be a whole number from 1 to 100`,
		"text=":                            `text was ""; it must be 1 to 200 bytes of text`,
		"text=" + strings.Repeat("x", 201): "it must be 1 to 200 bytes of text",
		"page=2":                           `the parameter "page" was not known`,
	} {
		a := b.get(t, "/history?"+query)
		if refused(t, a, message); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, a.status, a.text)
		}
	}
}

// Without MongoDB the history says so in time, and all else goes on.
func TestHistoryWithoutMongoDB(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*faultproxy.Proxy){"refused": (*faultproxy.Proxy).Refuse, "swallowed": (*faultproxy.Proxy).Swallow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adjust, store, proxy := withHistory(t)
			b := setup(t, adjust)
			put(t, store, entries()...)
			fault(proxy)
			for _, path := range []string{"/history", "/history/1795495826000:issue-sync"} {
				a := b.get(t, path)
				if a.status != http.StatusServiceUnavailable || !strings.Contains(a.text, "MongoDB is not available; try again later") || a.took > b.limit(answerLimit) {
					t.Errorf("%s: %d %s after %s", path, a.status, a.text, a.took)
				}
			}
			if a := b.get(t, "/jobs"); a.status != http.StatusOK {
				t.Errorf("meanwhile the jobs: %d %s", a.status, a.text)
			}
			if err := proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, "the history", func() bool { return b.get(t, "/history").status == http.StatusOK })
			proxy.Inject(faultproxy.Fault{Command: "find", Code: 13, Message: "not authorized on test to execute command { find }", Times: faultproxy.Always})
			if a := b.get(t, "/history"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.text, `lacks the right \"find\"`) {
				t.Errorf("without the right: %d %s", a.status, a.text)
			}
			if err := proxy.Heal(); err != nil {
				t.Fatal(err)
			}
			if a := b.get(t, "/history"); a.status != http.StatusOK {
				t.Errorf("then: %d %s", a.status, a.text)
			}
		})
	}
}

func TestHistoryOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/history", "/history/1795495826000:issue-sync"} {
		if a := b.get(t, path); a.status != http.StatusNotFound || !strings.Contains(a.text, "there is no history: it is switched off with HISTORY_KEEP=off") {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	if a := b.get(t, "/jobs/1795495826000:issue-sync"); a.status != http.StatusNotFound || strings.Contains(a.text, "history") {
		t.Errorf("a job: %d %s", a.status, a.text)
	}
}
