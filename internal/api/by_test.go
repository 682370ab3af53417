package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobs"
)

// The history says which key has done what, by the API and on the dashboard. What changes nothing is not in it.
func TestHistoryNamesTheKey(t *testing.T) {
	t.Parallel()
	b := setupLocked(t, func(o *api.Options) {
		o.Jobs.KeepHistory()
		o.Long = o.Jobs
	})
	ops := b.as(writeKey)
	waiting := ops.trigger(t, "project-sync", `{"syncType":"full"}`).Data.JobID
	for _, r := range []struct{ method, path, body string }{
		{http.MethodPost, "/jobs/pause", `{"job":"project-sync"}`},
		{http.MethodPost, "/jobs/pause", `{"job":"project-sync"}`},
		{http.MethodPost, "/jobs/resume", `{"job":"project-sync"}`},
		{http.MethodPost, "/jobs/cleanup", `{"job":"project-sync"}`},
		{http.MethodPost, "/jobs/cleanup", `{"job":"project-sync"}`},
		{http.MethodDelete, "/jobs/" + waiting, ""},
	} {
		if a := ops.request(t, r.method, r.path, r.body); a.status != http.StatusOK {
			t.Fatal(r.path, a.status, a.text)
		}
	}
	second := ops.trigger(t, "project-sync", `{"syncType":"full"}`).Data.JobID
	for _, r := range []struct{ method, path string }{
		{http.MethodPost, "/dashboard/api/queues/project-sync:pause"},
		{http.MethodPost, "/dashboard/api/queues/project-sync:resume"},
		{http.MethodPost, "/dashboard/api/queues/project-sync/pending_tasks/" + second + ":archive"},
	} {
		if a := ops.request(t, r.method, r.path, ""); a.status != http.StatusNoContent {
			t.Fatal(r.path, a.status, a.text)
		}
	}
	list, err := b.jobs.Entries(t.Context(), b.def(t, "project-sync"), 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		if want := (jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "ops"}); e.Err != nil || e.Entry.By != want {
			t.Errorf("%s %s is by %+v, %v", e.Entry.Kind, e.Entry.ID, e.Entry.By, e.Err)
		}
		what := e.Entry.Kind
		switch e.Entry.Kind {
		case jobs.EntryRun:
			what = e.Entry.ID + " " + string(e.Entry.State)
		case jobs.EntryCancel:
			what += " " + e.Entry.Target
		case jobs.EntryCleanup:
			what += fmt.Sprint(" ", *e.Entry.Removed)
		}
		got = append(got, what)
	}
	want := []string{
		"pause", "resume", "cleanup {2 2}", waiting + " removed", "cancel " + waiting, "pause", "resume", second + " failed", "cancel " + second,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the history has\n%q, want\n%q", got, want)
	}
}
