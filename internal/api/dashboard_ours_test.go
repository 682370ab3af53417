package api_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func writable(o *api.Options) { o.DashboardReadOnly = false }

// dashboard asks asynqmon, and decodes the answer, unless it is empty.
func (b *testBundle) dashboard(t *testing.T, method, path, body string, status int, v any) {
	t.Helper()
	a := b.request(t, method, "/dashboard/api/"+path, body)
	if a.status != status {
		t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.text, status)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.text), v); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, a.text)
		}
	}
}

// The dashboard shows and changes queues, servers and schedulers of its own deployment only.
func TestDashboardOfOneOfSeveral(t *testing.T) {
	t.Parallel()
	b := setup(t, writable)
	ctx := t.Context()
	def := b.def(t, "user-sync")

	// Another deployment, and another product of asynq, in the same Redis.
	shop := &testBundle{redis: b.redis, rdb: b.rdb, jobs: jobs.New(b.rdb, syncs().In("shop"), slog.New(slog.DiscardHandler))}
	shop.startScheduler(t)
	began := shop.startWorker(t)
	theirs, _ := shop.jobs.Registry().Lookup("user-sync")
	accepted, err := shop.jobs.Trigger(ctx, theirs, &tasks.SyncPayload{SyncType: tasks.SyncFull})
	if err != nil {
		t.Fatal(err)
	}
	run := next(t, began)
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(ctx, asynq.NewTask("mail", nil), asynq.Queue("mail")); err != nil {
		t.Fatal(err)
	}
	var servers struct{ Servers []any }
	testbed.Eventually(t, "their server to be known to asynq", func() bool {
		list, err := b.inspector.Servers()
		return err == nil && len(list) > 0
	})
	b.trigger(t, "user-sync", "")

	if got := b.queues(t); !slices.Equal(got, []string{"user-sync"}) {
		t.Errorf("the queues are %v", got)
	}
	var stats struct{ Stats map[string]any }
	b.dashboard(t, http.MethodGet, "queue_stats", "", http.StatusOK, &stats)
	if got := slices.Collect(maps.Keys(stats.Stats)); !slices.Equal(got, []string{"user-sync"}) {
		t.Errorf("there are figures of %v", got)
	}
	b.dashboard(t, http.MethodGet, "servers", "", http.StatusOK, &servers)
	if servers.Servers == nil || len(servers.Servers) > 0 {
		t.Errorf("the servers are %v", servers.Servers)
	}
	var entries struct{ Entries []any }
	b.dashboard(t, http.MethodGet, "scheduler_entries", "", http.StatusOK, &entries)
	if entries.Entries == nil || len(entries.Entries) > 0 {
		t.Errorf("the schedules are %v", entries.Entries)
	}
	if list, err := b.jobs.Schedules(t.Context(), time.Now()); err != nil || len(list) > 0 {
		t.Errorf("the API knows of %v, %v", list, err)
	}
	all, err := b.inspector.SchedulerEntries()
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	before := b.dump(t)
	foreign, queue := accepted.ID.String(), theirs.Queue()
	for _, request := range []struct{ method, path string }{
		{http.MethodGet, "queues/" + queue}, {http.MethodGet, "queues/mail"}, {http.MethodGet, "queues/unknown"},
		{http.MethodGet, "queues/" + def.RangeQueue()}, // ours, but there is none before the first range
		{http.MethodGet, "queues/" + queue + "/active_tasks"}, {http.MethodGet, "queues/" + queue + "/tasks/" + foreign},
		{http.MethodGet, "scheduler_entries/" + all[0].ID + "/enqueue_events"},
		{http.MethodDelete, "queues/mail"}, {http.MethodPost, "queues/" + queue + ":pause"}, {http.MethodPost, "queues/mail:resume"},
		{http.MethodPost, "queues/" + queue + "/active_tasks/" + foreign + ":cancel"},
		{http.MethodPost, "queues/" + queue + "/active_tasks:cancel_all"}, {http.MethodDelete, "queues/mail/pending_tasks:delete_all"},
		{http.MethodPost, "queues/user-sync/active_tasks/" + foreign + ":cancel"}, // which is not in this queue
	} {
		b.dashboard(t, request.method, request.path, "", http.StatusNotFound, nil)
	}
	changed := slices.DeleteFunc(changes(before, b.dump(t)), func(c string) bool {
		return strings.Contains(c, "asynq:servers") || strings.Contains(c, "asynq:workers") || strings.Contains(c, "asynq:schedulers") ||
			strings.Contains(c, "codex-jobs:shop:") || strings.Contains(c, ":lease")
	})
	if len(changed) > 0 {
		t.Errorf("in Redis, %v", changed)
	}
	run.finish(nil)

	// Its own are shown.
	b.startScheduler(t)
	own := b.startWorker(t)
	ours := next(t, own)
	b.dashboard(t, http.MethodGet, "scheduler_entries", "", http.StatusOK, &entries)
	b.dashboard(t, http.MethodGet, "queues/user-sync", "", http.StatusOK, nil)
	testbed.Eventually(t, "its server to be shown", func() bool {
		b.dashboard(t, http.MethodGet, "servers", "", http.StatusOK, &servers)
		return len(servers.Servers) == 1
	})
	if len(entries.Entries) != 1 {
		t.Errorf("the schedules are %v", entries.Entries)
	}
	ours.finish(nil)
}

// The buttons of the dashboard do to runs what the API does.
func TestDashboardButtons(t *testing.T) {
	t.Parallel()
	b := setup(t, writable)
	const tasksOf = "queues/user-sync/"
	full := b.trigger(t, "user-sync", `{"syncType":"full"}`).Data.JobID
	incremental := b.trigger(t, "user-sync", "").Data.JobID

	// Waiting runs are removed with their unique key: the next trigger enqueues another one.
	b.dashboard(t, http.MethodDelete, tasksOf+"pending_tasks/"+full, "", http.StatusNoContent, nil)
	b.dashboard(t, http.MethodDelete, tasksOf+"pending_tasks/"+full, "", http.StatusNotFound, nil)
	if again := b.trigger(t, "user-sync", `{"syncType":"full"}`).Data; again.Coalesced || again.JobID == full {
		t.Errorf("after the removal of %s: %+v", full, again)
	}
	var removed struct {
		Deleted    int
		DeletedIDs []string `json:"deleted_ids"`
		FailedIDs  []string `json:"failed_ids"`
	}
	b.dashboard(t, http.MethodPost, tasksOf+"pending_tasks:batch_delete", `{"task_ids":["`+incremental+`","none"]}`, http.StatusOK, &removed)
	if !slices.Equal(removed.DeletedIDs, []string{incremental}) || !slices.Equal(removed.FailedIDs, []string{"none"}) {
		t.Errorf("removed: %+v", removed)
	}
	b.dashboard(t, http.MethodDelete, tasksOf+"pending_tasks:delete_all", "", http.StatusOK, &removed)
	if left := b.status(t, "").Counts; removed.Deleted != 1 || left.Waiting != 0 {
		t.Errorf("removed %d, left %+v", removed.Deleted, left)
	}

	// A failed run that is retried has all attempts again.
	archived := b.trigger(t, "user-sync", "").Data.JobID
	b.dashboard(t, http.MethodPost, tasksOf+"pending_tasks/"+archived+":archive", "", http.StatusNoContent, nil)
	b.dashboard(t, http.MethodPost, tasksOf+"pending_tasks/"+archived+":archive", "", http.StatusConflict, nil)
	if counts := b.status(t, "").Counts; counts.Failed != 1 || counts.Waiting != 0 {
		t.Errorf("after archiving: %+v", counts)
	}
	var run struct{ Scheduled int }
	b.dashboard(t, http.MethodPost, tasksOf+"archived_tasks:run_all", "", http.StatusOK, &run)
	if retried, err := b.rdb.HGet(t.Context(), "codex-jobs:{user-sync}:run:"+archived, "retried").Result(); run.Scheduled != 1 || retried != "1" {
		t.Errorf("%d retried, %q, %v", run.Scheduled, retried, err)
	}

	// Each way to cancel an active run ends it as cancelled, after one attempt.
	began := b.startWorker(t)
	for _, cancel := range []func(id string){
		func(id string) {
			b.dashboard(t, http.MethodPost, tasksOf+"active_tasks/"+id+":cancel", "", http.StatusNoContent, nil)
		},
		func(string) {
			b.dashboard(t, http.MethodPost, tasksOf+"active_tasks:cancel_all", "", http.StatusNoContent, nil)
		},
		func(id string) {
			var answer map[string][]string
			b.dashboard(t, http.MethodPost, tasksOf+"active_tasks:batch_cancel", `{"task_ids":["`+id+`","none"]}`, http.StatusOK, &answer)
			if !slices.Equal(answer["canceled_ids"], []string{id}) || !slices.Equal(answer["error_ids"], []string{"none"}) {
				t.Errorf("the answer is %v", answer)
			}
		},
		func(id string) { // of a range, which cannot be cancelled alone
			queue := "queues/user-sync:ranges/"
			if err := b.jobs.EnqueueRange(t.Context(), b.def(t, "user-sync"), rangeOf(t, id), nil); err != nil {
				t.Fatal(err)
			}
			b.dashboard(t, http.MethodDelete, queue+"pending_tasks/"+id+"/0", "", http.StatusConflict, nil)
			b.dashboard(t, http.MethodPost, "queues/user-sync:ranges:pause", "", http.StatusConflict, nil)
			b.dashboard(t, http.MethodPost, queue+"active_tasks/"+id+"/0:cancel", "", http.StatusNoContent, nil)
		},
	} {
		id := next(t, began).ID.String()
		cancel(id)
		testbed.Eventually(t, "the run to be cancelled", func() bool {
			info, err := b.inspector.GetTaskInfo("user-sync", id)
			return err == nil && info.State == asynq.TaskStateArchived && info.LastErr == "cancelled" && info.Retried == 0
		})
		b.dashboard(t, http.MethodPost, tasksOf+"active_tasks/"+id+":cancel", "", http.StatusConflict, nil)
		b.trigger(t, "user-sync", "")
	}
	b.dashboard(t, http.MethodPost, "queues/user-sync:pause", "", http.StatusNoContent, nil)
	b.dashboard(t, http.MethodPost, "queues/user-sync:pause", "", http.StatusNoContent, nil) // as the API does
	if !b.status(t, "").Paused {
		t.Error("it is not paused")
	}
	b.dashboard(t, http.MethodPost, "queues/user-sync:resume", "", http.StatusNoContent, nil)
	for _, path := range []string{"active_tasks:burn_all", "lost_tasks:cancel_all", "active_tasks/x:burn", "active_tasks", "groups/g/aggregating_tasks/x:run"} {
		b.dashboard(t, http.MethodPost, tasksOf+path, "", http.StatusNotFound, nil)
	}
	next(t, began).finish(nil)
}

func rangeOf(t *testing.T, id string) tasks.RangeID {
	t.Helper()
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	return tasks.RangeID{Run: run}
}
