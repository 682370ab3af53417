package api_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestTriggerCoalesces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.trigger(t, "user-sync", `{"syncType": "incremental", "batchSize": 10}`)
	if first.Data.Coalesced {
		t.Error("the first trigger was coalesced")
	}
	for _, body := range []string{
		"", "{}", " ", `{"syncType": "incremental"}`, `{"batchSize": 10000}`, `{"syncType":"incremental","batchSize":1}`,
	} {
		again := b.trigger(t, "user-sync", body)
		if !again.Data.Coalesced || again.Data.JobID != first.Data.JobID || again.Message != first.Message {
			t.Errorf("body %q: %+v, want it coalesced with %s", body, again, first.Data.JobID)
		}
	}
	full := b.trigger(t, "user-sync", `{"syncType": "full"}`)
	if full.Data.Coalesced || full.Data.JobID == first.Data.JobID {
		t.Errorf("a full sync was coalesced with an incremental one: %+v", full)
	}
	other := b.trigger(t, "project-sync", `{"syncType": "incremental"}`)
	if other.Data.Coalesced {
		t.Errorf("a sync of the projects was coalesced with one of the users: %+v", other)
	}
	if got := b.status(t, "").Counts.Waiting; got != 2 {
		t.Errorf("%d user syncs wait, want 2", got)
	}
	info, err := b.inspector.GetTaskInfo("user-sync", first.Data.JobID)
	if err != nil || string(info.Payload) != `{"version":1,"syncType":"incremental","batchSize":10}` {
		t.Errorf("the waiting run carries %s, %v", info.Payload, err)
	}
}

// An active run does not serve a new trigger, because it has read some of the records already.
func TestTriggerDuringARun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	first := b.trigger(t, "user-sync", "")
	active := next(t, began)
	second := b.trigger(t, "user-sync", "")
	if second.Data.Coalesced || second.Data.JobID == first.Data.JobID {
		t.Errorf("the second trigger: %+v", second)
	}
	if third := b.trigger(t, "user-sync", ""); !third.Data.Coalesced || third.Data.JobID != second.Data.JobID {
		t.Errorf("the third trigger: %+v, want it coalesced with %s", third, second.Data.JobID)
	}
	none(t, began) // at most one run of a job type is active
	s := b.status(t, "")
	if s.Counts.Active != 1 || s.Counts.Waiting != 1 || len(s.ActiveJobs) != 1 || s.ActiveJobs[0].ID != first.Data.JobID {
		t.Errorf("the status is %+v", s)
	}
	active.finish(nil)
	after := next(t, began)
	if got := after.ID.String(); got != second.Data.JobID {
		t.Errorf("then %s began, want %s", got, second.Data.JobID)
	}
	after.finish(nil)
}

func TestTriggersAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	answers := make(map[string]int)
	var clients sync.WaitGroup
	for range 40 {
		clients.Go(func() {
			a, err := b.try(t.Context(), http.MethodPost, "/jobs/trigger/user-sync", `{"syncType":"full"}`)
			if err != nil || a.status != http.StatusOK {
				t.Errorf("got %d %s, %v", a.status, a.text, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			var r triggered
			if err := json.Unmarshal([]byte(a.text), &r); err != nil {
				t.Errorf("%v: %s", err, a.text)
			}
			answers[r.Data.JobID]++
			if !r.Data.Coalesced {
				answers["fresh"]++
			}
		})
	}
	clients.Wait()
	if len(answers) != 2 || answers["fresh"] != 1 || b.status(t, "").Counts.Waiting != 1 {
		t.Errorf("40 triggers were answered with %v", answers)
	}
}

// Every job type has the same routes, and its own name in messages.
func TestEveryJobType(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	for name, title := range map[string]string{"user-sync": "User sync", "project-sync": "Project sync", "issue-sync": "Issue sync"} {
		trigger := b.trigger(t, name, `{"syncType": "full", "batchSize": 7}`)
		if want := title + " (full) triggered successfully"; trigger.Message != want {
			t.Errorf("%s: %q, want %q", name, trigger.Message, want)
		}
		run := next(t, began)
		payload, _ := run.Payload.(*tasks.SyncPayload)
		if run.ID.String() != trigger.Data.JobID || run.ID.Job != name || payload.SyncType != "full" || *payload.BatchSize != 7 {
			t.Errorf("%s: the run is %+v with %+v", name, run.Attempt, payload)
		}
		s := b.status(t, "?job="+name)
		if len(s.ActiveJobs) != 1 || s.ActiveJobs[0].ID != trigger.Data.JobID || string(s.ActiveJobs[0].Data) != `{"syncType":"full","batchSize":7}` {
			t.Errorf("%s: the active jobs are %+v", name, s.ActiveJobs)
		}
		for _, do := range []string{"pause", "resume"} {
			var r struct{ Message string }
			b.ok(t, b.post(t, "/jobs/"+do, fmt.Sprintf(`{"job": %q}`, name)), &r)
			if want := title + " jobs " + do + "d"; r.Message != want {
				t.Errorf("%s: %q, want %q", name, r.Message, want)
			}
		}
		run.finish(nil)
		testbed.Eventually(t, "the run to be completed", func() bool { return b.status(t, "?job="+name).Counts.Completed == 1 })
	}
	if got := b.status(t, "?job=all").Counts.Completed; got != 3 {
		t.Errorf("%d runs of all job types are completed, want 3", got)
	}
	if got := b.status(t, "").Counts.Completed; got != 1 {
		t.Errorf("without ?job there are %d, want the user sync's only", got)
	}
}

func TestStatusOfAllJobs(t *testing.T) {
	t.Parallel()
	registry := syncs().Resolve(func(d *tasks.Definition) {
		switch d.Name {
		case "project-sync":
			d.Schedule = tasks.Schedule{Every: time.Hour}
		case "issue-sync":
			d.Schedule = tasks.Schedule{Cron: "0 9 * * 1-5"} // not evenly spaced
		}
	})
	b := setupRegistry(t, registry)
	began := b.startWorker(t)
	b.startScheduler(t)
	b.trigger(t, "user-sync", "")
	b.trigger(t, "issue-sync", "")
	runs := []*attempt{next(t, began), next(t, began)}
	b.trigger(t, "user-sync", "")
	b.trigger(t, "user-sync", `{"syncType":"full"}`)

	all := b.status(t, "?job=all")
	if all.Counts.Active != 2 || all.Counts.Waiting != 2 || len(all.ActiveJobs) != 2 {
		t.Errorf("of all jobs: %+v", all)
	}
	var keys []string
	every := make(map[string]string)
	for _, r := range all.RepeatableJobs {
		job, _, _ := strings.Cut(r.Key, ":")
		keys = append(keys, job)
		every[job] = "null"
		if r.Every != nil {
			every[job] = fmt.Sprint(*r.Every)
		}
		if r.Name != "__default__" || time.Until(time.UnixMilli(r.Next)) < -5*time.Second {
			t.Errorf("a repeatable job is %+v", r)
		}
	}
	slices.Sort(keys)
	if fmt.Sprint(keys) != "[issue-sync project-sync user-sync]" {
		t.Errorf("the repeatable jobs are %v", keys)
	}
	if every["user-sync"] != "1200000" || every["project-sync"] != "3600000" || every["issue-sync"] != "null" {
		t.Errorf("they repeat every %v", every)
	}
	if s := b.status(t, "?job=project-sync"); s.Counts.Active != 0 || len(s.RepeatableJobs) != 1 {
		t.Errorf("of the project sync: %+v", s)
	}

	// All are paused only when every one is.
	for _, step := range []struct {
		job  string
		want bool
	}{{"user-sync", false}, {"issue-sync", false}, {"project-sync", true}} {
		b.post(t, "/jobs/pause", fmt.Sprintf(`{"job": %q}`, step.job))
		if got := b.status(t, "?job=all").Paused; got != step.want {
			t.Errorf("after pausing %s too, paused is %v", step.job, got)
		}
	}
	for _, run := range runs {
		run.finish(nil)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	first := b.trigger(t, "user-sync", "")
	run := next(t, began)
	for range 2 { // it is idempotent
		if a := b.post(t, "/jobs/pause", ""); a.status != http.StatusOK || !b.status(t, "").Paused {
			t.Fatalf("pausing: %d %s", a.status, a.text)
		}
	}
	// An active run goes on, and triggers still enqueue.
	second := b.trigger(t, "user-sync", "")
	if second.Data.Coalesced {
		t.Errorf("the trigger was coalesced: %+v", second)
	}
	if err := run.Save(t.Context(), nil, 50); err != nil {
		t.Errorf("the active run cannot save its progress: %v", err)
	}
	if s := b.status(t, ""); s.Counts.Active != 1 || s.Counts.Waiting != 1 || s.ActiveJobs[0].ID != first.Data.JobID || s.ActiveJobs[0].Progress != 50 {
		t.Errorf("the status is %+v", s)
	}
	select {
	case <-run.Stop:
		t.Error("the active run was asked to stop")
	default:
	}
	run.finish(nil)
	testbed.Eventually(t, "the active run to be completed", func() bool { return b.status(t, "").Counts.Completed == 1 })
	none(t, began)

	// Other job types are not affected.
	b.trigger(t, "project-sync", "")
	next(t, began).finish(nil)

	for range 2 {
		if a := b.post(t, "/jobs/resume", ""); a.status != http.StatusOK || b.status(t, "").Paused {
			t.Fatalf("resuming: %d %s", a.status, a.text)
		}
	}
	run = next(t, began)
	if got := run.ID.String(); got != second.Data.JobID {
		t.Errorf("after resuming %s began, want %s", got, second.Data.JobID)
	}
	run.finish(nil)
	for _, msg := range []string{"User sync jobs paused", "User sync jobs resumed"} {
		if n := len(b.log.Find(procs.Match{Msg: msg, Attrs: procs.Attrs{"level": "INFO"}})); n != 2 {
			t.Errorf("the log has %q %d times, want 2", msg, n)
		}
	}
}

// Either can win, and neither is refused.
func TestPauseAndResumeAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var clients sync.WaitGroup
	for range 20 {
		for _, path := range []string{"/jobs/pause", "/jobs/resume"} {
			clients.Go(func() {
				if a, err := b.try(t.Context(), http.MethodPost, path, ""); err != nil || a.status != http.StatusOK {
					t.Errorf("%s: %d %s, %v", path, a.status, a.text, err)
				}
			})
		}
	}
	clients.Wait()
}

// Ticks enqueue while the job type is paused.
func TestTickWhilePaused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	def := b.def(t, "user-sync")
	b.post(t, "/jobs/pause", "")
	tick, err := b.jobs.EnqueueTick(t.Context(), def, def.Schedule.Prev(time.Now()))
	if err != nil || !tick.Enqueued {
		t.Errorf("the tick is %+v, %v", tick, err)
	}
}

// A run that waits for its retry is shown as delayed, is not active, and no trigger is coalesced with it.
func TestFailedAttempts(t *testing.T) {
	t.Parallel()
	b := setupRegistry(t, syncs().Resolve(func(d *tasks.Definition) {
		if d.Name == "issue-sync" {
			d.Attempts = 1
		}
	}))
	began := b.startWorker(t)
	b.trigger(t, "user-sync", "")
	next(t, began).finish(errors.New("on purpose"))
	testbed.Eventually(t, "the run to wait for its retry", func() bool { return b.status(t, "").Counts.Delayed == 1 })
	if c := b.status(t, "").Counts; c.Active != 0 || c.Waiting != 0 || c.Failed != 0 || c.Completed != 0 {
		t.Errorf("the counts are %+v", c)
	}
	if again := b.trigger(t, "user-sync", ""); again.Data.Coalesced {
		t.Errorf("coalesced with a run that has begun: %+v", again)
	}
	next(t, began).finish(nil)
	b.trigger(t, "issue-sync", "")
	next(t, began).finish(errors.New("on purpose"))
	testbed.Eventually(t, "the run to have failed", func() bool { return b.status(t, "?job=issue-sync").Counts.Failed == 1 })
}

// A run that has begun serves no trigger, in any state of its task: its reference time is before the trigger.
func TestTriggerIsNotServedByARunThatHasBegun(t *testing.T) {
	t.Parallel()
	t.Run("and waits again, for a retry", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		began := b.startWorker(t)
		first := b.trigger(t, "user-sync", "").Data.JobID
		next(t, began).finish(errors.New("on purpose"))
		testbed.Eventually(t, "the run to wait for its retry", func() bool { return b.status(t, "").Counts.Delayed == 1 })
		b.post(t, "/jobs/pause", "")
		if err := b.inspector.RunTask("user-sync", first); err != nil {
			t.Fatal(err)
		}
		if second := b.trigger(t, "user-sync", ""); second.Data.Coalesced || second.Data.JobID == first {
			t.Errorf("the trigger was coalesced: %+v", second)
		}
	})
	t.Run("and whose worker has not said so", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		first := b.trigger(t, "user-sync", "").Data.JobID
		taken, finish := make(chan struct{}), make(chan struct{})
		server := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{
			Concurrency: 1, Queues: map[string]int{"user-sync": 1}, TaskCheckInterval: 5 * time.Millisecond, LogLevel: asynq.FatalLevel,
		})
		if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
			if id, _ := asynq.GetTaskID(ctx); id == first {
				close(taken)
				<-finish
			}
			return nil
		})); err != nil {
			t.Fatal(err)
		}
		defer server.Shutdown()
		defer close(finish)
		<-taken
		if second := b.trigger(t, "user-sync", ""); second.Data.Coalesced || second.Data.JobID == first {
			t.Errorf("the trigger was coalesced: %+v", second)
		}
	})
}

// ended puts a completed and a failed run of the job type into Redis for each of the given times ago, at which they ended.
func (b *testBundle) ended(t *testing.T, name string, ago ...time.Duration) {
	t.Helper()
	def := b.def(t, name)
	client := asynq.NewClientFromRedisClient(b.rdb)
	for _, d := range ago {
		at := time.Now().Add(-d)
		failed := tasks.TriggerID(name, at) // archived before it ever ran: its end is its reference
		if _, err := client.EnqueueContext(t.Context(), def.NewTask(failed, []byte("{}"), nil)); err != nil {
			t.Fatal(err)
		}
		if err := b.inspector.ArchiveTask(name, failed.String()); err != nil {
			t.Fatal(err)
		}
		b.completed(t, def, client, at)
	}
}

// completed puts a completed run into Redis.
func (b *testBundle) completed(t *testing.T, def tasks.Definition, client *asynq.Client, at time.Time) {
	t.Helper()
	id := tasks.TriggerID(def.Name, at).String()
	done := make(chan struct{})
	server := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{
		Concurrency: 1, Queues: map[string]int{def.Name: 1}, TaskCheckInterval: 5 * time.Millisecond, LogLevel: asynq.FatalLevel,
	})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(done)
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnqueueContext(t.Context(), asynq.NewTask(def.Name, []byte("{}"), def.TaskOptions(id)...)); err != nil {
		t.Fatal(err)
	}
	<-done
	server.Shutdown()
	// A task is kept as a protobuf message, whose field 13 is the time of its completion; of a field that is there twice
	// the last one counts.
	key := "asynq:{" + def.Name + "}:t:" + id
	message, err := b.rdb.HGet(t.Context(), key, "msg").Bytes()
	if err != nil {
		t.Fatal(err)
	}
	message = binary.AppendUvarint(append(message, 13<<3), uint64(at.Unix()))
	if err := b.rdb.HSet(t.Context(), key, "msg", message).Err(); err != nil {
		t.Fatal(err)
	}
	if info, err := b.inspector.GetTaskInfo(def.Name, id); err != nil || info.State != asynq.TaskStateCompleted || info.CompletedAt.Unix() != at.Unix() {
		t.Fatalf("the completed run is %+v, %v", info, err)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	ages := []time.Duration{2 * time.Second, 20 * time.Minute, 40 * time.Minute, 23 * hour, 25 * hour, 47 * hour, 49 * hour, 8000 * hour}
	for _, test := range []struct {
		body, grace string
		left        int // of each outcome
	}{
		{"", "24h", 4},
		{"{}", "24h", 4},
		{`{"gracePeriodHours": 24}`, "24h", 4},
		{`{"gracePeriodHours": 48}`, "48h", 6},
		{`{"gracePeriodHours": 48.0}`, "48h", 6},
		{`{"gracePeriodHours": 0.5}`, "0.5h", 2},
		{`{"gracePeriodHours": 5e-1}`, "0.5h", 2},
		{`{"gracePeriodHours": 0}`, "0h", 0},
		{`{"gracePeriodHours": -0}`, "0h", 0},
		{`{"gracePeriodHours": 8760}`, "8760h", 8},
		{`{"job": "user-sync"}`, "24h", 4},
	} {
		t.Run(test.body, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.ended(t, "user-sync", ages...)
			b.ended(t, "project-sync", 100*hour)
			waiting := b.trigger(t, "user-sync", "") // is not ended, so it is never old
			var r struct {
				Message string
				Data    struct{ Completed, Failed int }
			}
			b.ok(t, b.post(t, "/jobs/cleanup", test.body), &r)
			if want := "Old jobs cleaned up (grace period: " + test.grace + ")"; r.Message != want {
				t.Errorf("%q, want %q", r.Message, want)
			}
			want := len(ages) - test.left
			if r.Data.Completed != want || r.Data.Failed != want {
				t.Errorf("%d completed and %d failed runs were removed, want %d of each", r.Data.Completed, r.Data.Failed, want)
			}
			if c := b.status(t, "").Counts; c.Completed != test.left || c.Failed != test.left || c.Waiting != 1 {
				t.Errorf("the counts are %+v, want %d completed and failed ones, and %s waiting", c, test.left, waiting.Data.JobID)
			}
			if c := b.status(t, "?job=project-sync").Counts; c.Completed != 1 || c.Failed != 1 {
				t.Errorf("another job type's counts are %+v", c)
			}
		})
	}
}

func TestCleanupOfAnotherJob(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.ended(t, "user-sync", 25*time.Hour)
	b.ended(t, "issue-sync", time.Hour, 25*time.Hour)
	var r struct {
		Data struct{ Completed, Failed int }
	}
	b.ok(t, b.post(t, "/jobs/cleanup", `{"job": "issue-sync", "gracePeriodHours": 24}`), &r)
	if r.Data.Completed != 1 || r.Data.Failed != 1 {
		t.Errorf("removed %+v, want one of each", r.Data)
	}
	if all := b.status(t, "?job=all").Counts; all.Completed != 2 || all.Failed != 2 {
		t.Errorf("left are %+v", all)
	}
	b.ok(t, b.post(t, "/jobs/cleanup", `{"job": "issue-sync", "gracePeriodHours": 0}`), &r)
	b.ok(t, b.post(t, "/jobs/cleanup", `{"job": "project-sync", "gracePeriodHours": 0}`), &r)
	if r.Data.Completed != 0 || r.Data.Failed != 0 {
		t.Errorf("of a job that never ran %+v were removed", r.Data)
	}
	if users := b.status(t, "").Counts; users.Completed != 1 || users.Failed != 1 {
		t.Errorf("of the user syncs %+v are left, want both", users)
	}
}

// Pauses, resumes and cleanups of all job types.
func TestControlOfAll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, step := range []struct {
		action, message string
		paused          bool
	}{
		{"pause", "All jobs paused", true}, {"pause", "All jobs paused", true}, {"resume", "All jobs resumed", false},
	} {
		var r struct{ Message string }
		b.ok(t, b.post(t, "/jobs/"+step.action, `{"job": "all"}`), &r)
		if r.Message != step.message {
			t.Errorf("%s: %q", step.action, r.Message)
		}
		for _, name := range b.jobs.Registry().Names() {
			if got := b.status(t, "?job="+name).Paused; got != step.paused {
				t.Errorf("%s is paused: %v, want %v", name, got, step.paused)
			}
		}
	}
	b.ended(t, "user-sync", time.Hour, 25*time.Hour)
	b.ended(t, "issue-sync", 25*time.Hour)
	var r struct {
		Data struct{ Completed, Failed int }
	}
	b.ok(t, b.post(t, "/jobs/cleanup", `{"job": "all"}`), &r)
	if r.Data.Completed != 2 || r.Data.Failed != 2 {
		t.Errorf("removed %+v, want two of each", r.Data)
	}
}

// Jobs in other states and of other job types stay as they are.
func TestSeveral(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body, path, want string
		users, issues    counts
	}{
		{
			``, "/jobs/retry-failed", `"message":"User sync: 2 failed jobs will be tried again","data":{"retried":2,"left":0}`,
			counts{Waiting: 3, Completed: 2, Delayed: 1}, counts{Waiting: 1, Completed: 1, Failed: 1},
		},
		{
			`{"job": "all"}`, "/jobs/retry-failed", `"message":"All: 3 failed jobs will be tried again","data":{"retried":3,"left":0}`,
			counts{Waiting: 3, Completed: 2, Delayed: 1}, counts{Waiting: 2, Completed: 1},
		},
		{
			`{"job": "issue-sync"}`, "/jobs/cancel-waiting", `"message":"Issue sync: 1 waiting job removed","data":{"removed":1,"left":0}`,
			counts{Waiting: 1, Completed: 2, Failed: 2, Delayed: 1}, counts{Completed: 1, Failed: 1},
		},
		{
			`{"job": "all"}`, "/jobs/cancel-waiting", `"message":"All: 2 waiting jobs removed","data":{"removed":2,"left":0}`,
			counts{Completed: 2, Failed: 2, Delayed: 1}, counts{Completed: 1, Failed: 1},
		},
	} {
		t.Run(test.path+test.body, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.ended(t, "user-sync", time.Hour, 2*time.Hour)
			b.ended(t, "issue-sync", time.Hour)
			b.trigger(t, "user-sync", "")
			b.trigger(t, "user-sync", `{"delay": 600000}`)
			b.trigger(t, "issue-sync", "")
			a := b.post(t, test.path, test.body)
			if a.status != http.StatusOK || !strings.Contains(a.text, test.want) {
				t.Errorf("got %d %s, want %s", a.status, a.text, test.want)
			}
			if c := b.status(t, "").Counts; c != test.users {
				t.Errorf("the user syncs are %+v, want %+v", c, test.users)
			}
			if c := b.status(t, "?job=issue-sync").Counts; c != test.issues {
				t.Errorf("the issue syncs are %+v, want %+v", c, test.issues)
			}
		})
	}
}

// A Redis that takes long for many runs is not away.
func TestCleanupOfManyRuns(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *api.Options) { o.Jobs.Redis().AddHook(slowRedis(3 * time.Millisecond)) })
	def := b.def(t, "user-sync")
	client := asynq.NewClientFromRedisClient(b.rdb)
	const many = 500
	at := time.Now().Add(-time.Hour)
	for range many {
		if _, err := client.EnqueueContext(t.Context(), def.NewTask(tasks.TriggerID(def.Name, at), []byte("{}"), nil)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.inspector.ArchiveAllPendingTasks(def.Name); err != nil || n != many {
		t.Fatal(n, err)
	}
	a := b.post(t, "/jobs/cleanup", `{"gracePeriodHours": 0}`)
	if want := fmt.Sprintf(`"failed":%d`, many); a.status != http.StatusOK || !strings.Contains(a.text, want) {
		t.Errorf("got %d %s after %s, want %s", a.status, a.text, a.took, want)
	}
	if a.took < 1500*time.Millisecond {
		t.Errorf("it took %s only, and so shows nothing", a.took)
	}
}

// slowRedis is a hook that makes every command take longer.
type slowRedis time.Duration

func (slowRedis) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d slowRedis) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		time.Sleep(time.Duration(d))
		return next(ctx, cmd)
	}
}

func (slowRedis) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// While short runs begin and end all the time, each trigger is answered with a run that serves it: a lost race is no reason to
// refuse one.
func TestManyTriggersOfShortRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.undescribed = true
	b.client.Transport = &http.Transport{MaxIdleConnsPerHost: 100}
	handlers := make(map[string]jobtype.Handler)
	for _, name := range b.jobs.Registry().Names() {
		handlers[name] = func(context.Context, *jobtype.Attempt) (any, error) { return struct{}{}, nil }
	}
	b.startWorkerOf(t, handlers)
	var served atomic.Int64
	var triggering sync.WaitGroup
	for range 100 {
		triggering.Go(func() {
			for range 10 {
				a, err := b.try(t.Context(), http.MethodPost, "/jobs/trigger/user-sync", "")
				switch {
				case err == nil && a.status == http.StatusOK:
					served.Add(1)
				case err != nil || a.status != http.StatusServiceUnavailable: // for which see below
					t.Errorf("%d %s, %v", a.status, a.text, err)
				}
			}
		})
	}
	triggering.Wait()
	// On a machine that is busy enough, Redis itself may take too long.
	for _, line := range b.log.Find(procs.Match{Msg: "Redis did not serve a request"}) {
		if why, _ := line.Attrs["error"].(string); !strings.Contains(why, "timeout") && !strings.Contains(why, "deadline") {
			t.Errorf("a trigger was refused: %s", why)
		}
	}
	if served.Load() == 0 {
		t.Error("no trigger was served")
	}
	testbed.Eventually(t, "all runs to have ended", func() bool {
		s := b.status(t, "")
		return s.Counts.Active+s.Counts.Waiting+s.Counts.Delayed == 0
	})
}
