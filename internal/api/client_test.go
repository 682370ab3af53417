package api_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// pkg/client against the API itself.

func (b *testBundle) api(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(b.url, client.WithHTTPClient(b.client), client.WithTimeout(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// must returns the result of a call of the client that must not fail.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, ctx := b.api(t), t.Context()
	job, message := must[client.Job](t), must[string](t)

	first := must[client.Triggered](t)(c.Trigger(ctx, "user-sync", client.SyncPayload{SyncType: client.SyncFull, BatchSize: 7}))
	again := must[client.Triggered](t)(c.Trigger(ctx, "user-sync", client.SyncPayload{SyncType: client.SyncFull}))
	other := must[client.Triggered](t)(c.Trigger(ctx, "user-sync", nil))
	if first.Coalesced || !again.Coalesced || again.JobID != first.JobID || other.Coalesced || first.Message != "User sync (full) triggered successfully" {
		t.Errorf("triggered were %+v, %+v, %+v", first, again, other)
	}
	waiting := job(c.Job(ctx, first.JobID))
	var payload client.SyncPayload
	if err := json.Unmarshal(waiting.Data, &payload); err != nil || payload != (client.SyncPayload{SyncType: client.SyncFull, BatchSize: 7}) {
		t.Errorf("the payload is %s, %v", waiting.Data, err)
	}
	if waiting.ID != first.JobID || waiting.Job != "user-sync" || waiting.State != client.StateWaiting || waiting.Attempts != 3 || time.Since(waiting.CreatedAt.Time).Abs() > time.Minute {
		t.Errorf("the waiting job is %+v", waiting)
	}
	if removed := must[client.Changed](t)(c.Cancel(ctx, other.JobID)); removed.ID != other.JobID || removed.State != client.StateRemoved || removed.Message == "" {
		t.Errorf("cancelled was %+v", removed)
	}

	began := b.startWorker(t)
	b.startScheduler(t)
	run := next(t, began)
	if err := run.Save(ctx, nil, 40); err != nil {
		t.Fatal(err)
	}
	active := job(c.Job(ctx, first.JobID))
	if active.State != client.StateActive || active.Progress != 40 || active.Attempt != 1 || active.StartedAt.IsZero() || !active.EndedAt.IsZero() {
		t.Errorf("the active job is %+v", active)
	}
	if changed := must[client.Changed](t)(c.Cancel(ctx, first.JobID)); changed.State != client.StateCancelling {
		t.Errorf("cancelled was %+v", changed)
	}
	testbed.Eventually(t, "the job to be cancelled", func() bool { return job(c.Job(ctx, first.JobID)).Cancelled() })
	if changed := must[client.Changed](t)(c.Retry(ctx, first.JobID)); changed.State != client.StateWaiting {
		t.Errorf("retried was %+v", changed)
	}
	next(t, began).finish(errors.New("on purpose"))
	testbed.Eventually(t, "the job to be delayed", func() bool { return job(c.Job(ctx, first.JobID)).State == client.StateDelayed })
	if delayed := job(c.Job(ctx, first.JobID)); delayed.Error != "on purpose" || delayed.NextAttemptAt.IsZero() {
		t.Errorf("the delayed job is %+v", delayed)
	}
	next(t, began).finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return job(c.Job(ctx, first.JobID)).State == client.StateCompleted })

	list := must[client.JobList](t)(c.Jobs(ctx, client.Filter{Job: "user-sync", State: client.StateCompleted, Page: 1, PageSize: 5}))
	if len(list.Jobs) != 1 || list.Jobs[0].ID != first.JobID || list.Total != 1 || list.Page != 1 || list.PageSize != 5 {
		t.Errorf("the list is %+v", list)
	}
	for _, state := range client.States() {
		must[client.JobList](t)(c.Jobs(ctx, client.Filter{State: state})) // the API knows each state
	}
	message(c.Pause(ctx, client.AllJobs))
	must[client.Triggered](t)(c.Trigger(ctx, "issue-sync", nil))
	if removed := must[client.Removed](t)(c.CancelWaiting(ctx, client.AllJobs)); removed.Removed != 1 || removed.Message != "All: 1 waiting job removed" {
		t.Errorf("cancelled was %+v", removed)
	}
	if retried := must[client.Retried](t)(c.RetryFailed(ctx, "")); retried.Retried != 0 || retried.Message != "User sync: 0 failed jobs will be tried again" {
		t.Errorf("retried was %+v", retried)
	}
	message(c.Resume(ctx, client.AllJobs))
	if got := message(c.Pause(ctx, "")) + ", " + message(c.Resume(ctx, "issue-sync")); got != "User sync jobs paused, Issue sync jobs resumed" {
		t.Errorf("the messages are %s", got)
	}
	if s := must[client.Status](t)(c.Status(ctx, "")); !s.Paused || s.Counts.Completed != 1 || len(s.RepeatableJobs) != 1 {
		t.Errorf("the status is %+v", s)
	}
	if s := must[[]client.Schedule](t)(c.Schedules(ctx)); len(s) != 1 || s[0].Job != "user-sync" || !s[0].Paused || s[0].Next.IsZero() {
		t.Errorf("the schedules are %+v", s)
	}
	if h := must[client.Health](t)(c.Health(ctx)); h.Status != "OK" || h.Timestamp.IsZero() || h.Redis.Status != "connected" {
		t.Errorf("the health is %+v", h)
	}
	if removed := must[client.CleanedUp](t)(c.Cleanup(ctx, "", 0)); removed.Completed != 1 || removed.Failed != 0 {
		t.Errorf("cleaned up was %+v", removed)
	}
	for what, is := range map[string]bool{
		"a job that is not there":      client.IsNotFound(second(c.Job(ctx, first.JobID))),
		"a malformed ID":               client.IsNotFound(second(c.Job(ctx, "a/b c"))),
		"a path that is no job":        client.IsNotFound(second(c.Job(ctx, "status"))),
		"cancelling what is not there": client.IsNotFound(second(c.Cancel(ctx, first.JobID))),
		"a job type that is not there": client.IsNotFound(second(c.Trigger(ctx, "users", nil))),
	} {
		if !is {
			t.Errorf("%s is not as it should be", what)
		}
	}
	ended := must[client.Triggered](t)(c.Trigger(ctx, "issue-sync", nil))
	next(t, began).finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return job(c.Job(ctx, ended.JobID)).State == client.StateCompleted })
	if !client.IsConflict(second(c.Cancel(ctx, ended.JobID))) || !client.IsConflict(second(c.Retry(ctx, ended.JobID))) {
		t.Error("what is completed can be changed")
	}
}

func second[T any](_ T, err error) error { return err }
