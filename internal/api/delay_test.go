package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// delayed is the data of the answer to a delayed trigger.
type delayed struct {
	JobID     string
	Coalesced bool
	RunAt     *time.Time
}

func (b *testBundle) delay(t *testing.T, job, body string) delayed {
	t.Helper()
	var r struct{ Data delayed }
	b.ok(t, b.post(t, "/jobs/trigger/"+job, body), &r)
	return r.Data
}

// A delayed job of any type is seen as delayed, everywhere, with the time when it starts.
func TestDelayedJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	runAt := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	written, elsewhere := runAt.Format(tasks.TimestampLayout), runAt.In(time.FixedZone("", 5400)).Format(time.RFC3339Nano)
	for name, test := range map[string]struct {
		job, body string
		exact     bool
	}{
		"as the API writes instants": {"user-sync", fmt.Sprintf(`{"syncType": "full", "runAt": %q}`, written), true},
		"in another zone":            {"issue-sync", fmt.Sprintf(`{"runAt": %q}`, elsewhere), true},
		"after a time":               {"project-sync", `{"delay": 3600000, "batchSize": 7}`, false},
	} {
		before := time.Now().Truncate(time.Millisecond)
		got := b.delay(t, test.job, test.body)
		if got.Coalesced || got.RunAt == nil || test.exact && !got.RunAt.Equal(runAt) {
			t.Fatalf("%s: %+v, want it to run at %s", name, got, runAt)
		}
		if early := got.RunAt.Sub(before.Add(time.Hour)); !test.exact && (early < 0 || early > time.Minute) {
			t.Errorf("%s: it runs at %s", name, got.RunAt)
		}
		if !strings.HasPrefix(got.JobID, fmt.Sprintf("%d:%s:", got.RunAt.UnixMilli(), test.job)) {
			t.Errorf("%s: the ID is %s", name, got.JobID)
		}
		var shown struct{ Data client.Job }
		b.ok(t, b.get(t, "/jobs/"+got.JobID), &shown)
		if j := shown.Data; j.State != client.StateDelayed || !j.NextAttemptAt.Equal(*got.RunAt) || j.Attempt != 0 ||
			!j.StartedAt.IsZero() || strings.Contains(string(j.Data), "runAt") || strings.Contains(string(j.Data), "delay") {
			t.Errorf("%s: it is %+v", name, j)
		}
		if counts := b.status(t, "?job="+test.job).Counts; counts.Delayed != 1 || counts.Waiting != 0 {
			t.Errorf("%s: the counts are %+v", name, counts)
		}
	}
	var list struct{ Data client.JobList }
	b.ok(t, b.get(t, "/jobs?state=delayed"), &list)
	if list.Data.Total != 3 {
		t.Errorf("listed are %+v", list.Data)
	}
}

// The answer to any other trigger is as it was, and a time that has passed means now.
func TestTriggerNowIsAnsweredAsBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i, body := range []string{"", "{}", `{"delay": 0}`, `{"runAt": "2020-01-01T00:00:00Z"}`, `{"syncType": "incremental"}`} {
		a := b.post(t, "/jobs/trigger/user-sync", body)
		var r struct{ Data map[string]json.RawMessage }
		b.ok(t, a, &r)
		if len(r.Data) != 2 || string(r.Data["coalesced"]) != fmt.Sprint(i > 0) {
			t.Errorf("%s: %s", body, a.text)
		}
	}
}

// What no schema can tell is refused, too.
func TestDelayThatIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	far := time.Now().Add(366 * 24 * time.Hour).UTC().Format(tasks.TimestampLayout)
	const both = `{"delay": 1, "runAt": "2026-11-24T04:50:00Z"}`
	for body, want := range map[string]string{
		both: `the field "delay" was given beside "runAt"; it must be given without that, or left out`,
		fmt.Sprintf(`{"runAt": %q}`, far): fmt.Sprintf(
			`runAt was %q; it must be an instant such as "2026-11-24T04:50:00.000Z", at most 365 days ahead`, far,
		),
	} {
		a := b.post(t, "/jobs/trigger/user-sync", body)
		if message, _ := a.json(t)["message"].(string); a.status != http.StatusBadRequest || message != want {
			t.Errorf("%s: %d %s, want %s", body, a.status, a.text, want)
		}
	}
	if contents := b.dump(t); len(contents) > 0 {
		t.Errorf("Redis has %v", contents)
	}
}

// DELETE removes it, as any job that has not begun.
func TestDelayedJobIsCancelled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	cancelled, later := b.delay(t, "user-sync", `{"delay": 1200}`), b.delay(t, "user-sync", `{"delay": 2300}`)
	a := b.request(t, http.MethodDelete, "/jobs/"+cancelled.JobID, "")
	var r struct{ Data client.Changed }
	if b.ok(t, a, &r); r.Data.State != client.StateRemoved {
		t.Errorf("cancelled with %s", a.text)
	}
	if a := b.get(t, "/jobs/"+cancelled.JobID); a.status != http.StatusNotFound {
		t.Errorf("it is still there: %d %s", a.status, a.text)
	}
	if a := b.post(t, "/jobs/"+later.JobID+"/retry", ""); a.status != http.StatusConflict {
		t.Errorf("one that is to come is retried with %d %s", a.status, a.text)
	}
	run := next(t, began)
	if run.ID.String() != later.JobID {
		t.Errorf("%s began, want %s only", run.ID, later.JobID)
	}
	run.finish(nil)
}

// The client's options reach the API.
func TestClientDelays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.api(t)
	runAt := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	at := must[client.Triggered](t)(c.Trigger(t.Context(), "user-sync", nil, client.RunAt(runAt)))
	if !at.RunAt.Equal(runAt) || at.Coalesced {
		t.Errorf("with RunAt: %+v", at)
	}
	full := client.SyncPayload{SyncType: client.SyncFull}
	after := must[client.Triggered](t)(c.Trigger(t.Context(), "user-sync", full, client.Delay(time.Hour)))
	if early := after.RunAt.Sub(runAt); early < 0 || early > time.Minute {
		t.Errorf("with Delay: %+v", after)
	}
	now := must[client.Triggered](t)(c.Trigger(t.Context(), "user-sync", nil))
	if !now.RunAt.IsZero() {
		t.Errorf("without: %+v", now)
	}
	job := must[client.Job](t)(c.Job(t.Context(), after.JobID))
	if job.State != client.StateDelayed || string(job.Data) != `{"syncType":"full"}` {
		t.Errorf("the job is %+v", job)
	}
}
