package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// told is a notification as the receiver gets it.
type told struct {
	ID        string `json:"-"`
	Type      string
	Timestamp time.Time
	Data      struct {
		Job, JobID, Error, Schedule string
		Counts                      *client.RecordCounts
		ErrorRate                   float64
		Missed, Previous            time.Time
	}
}

// receiver takes notifications, and verifies them.
type receiver struct {
	url string

	mu     sync.Mutex
	status int           // what it answers
	hang   chan struct{} // it answers when this is closed; nil for at once
	tries  []told        // those that it did not take, too
	taken  []told
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: http.StatusNoContent}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL + "/events"
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	verifier, wrong := standardwebhooks.NewWebhook(firstSecret)
	if err != nil || wrong != nil || verifier.Verify(body, request.Header) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	event := told{ID: request.Header.Get("webhook-id")}
	if err := json.Unmarshal(body, &event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	status, hang := r.status, r.hang
	r.tries = append(r.tries, event)
	if status < 300 && hang == nil {
		r.taken = append(r.taken, event)
	}
	r.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-request.Context().Done():
		}
	}
	w.WriteHeader(status)
}

// behave makes it answer with a status from now on, at once or when the channel is closed.
func (r *receiver) behave(status int, hang chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.hang = status, hang
}

func (r *receiver) seen() (tries, taken []told) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tries), slices.Clone(r.taken)
}

// wait waits until it has taken an event of the type about the run, "" for any, and returns it.
func (r *receiver) wait(t *testing.T, kind, jobID string) (found told) {
	t.Helper()
	testbed.Eventually(t, kind+" of "+jobID, func() bool {
		_, taken := r.seen()
		i := slices.IndexFunc(taken, func(e told) bool { return e.Type == kind && (jobID == "" || e.Data.JobID == jobID) })
		if i >= 0 {
			found = taken[i]
		}
		return i >= 0
	})
	return found
}

// wantOnce checks that no event was taken twice, and that there is none but those that the test knows.
func (r *receiver) wantOnce(t *testing.T, kinds ...string) {
	t.Helper()
	_, taken := r.seen()
	var got []string
	for i, e := range taken {
		got = append(got, e.Type)
		if slices.ContainsFunc(taken[:i], func(before told) bool { return before.ID == e.ID }) {
			t.Errorf("%s came twice", e.ID)
		}
		if e.Timestamp.IsZero() {
			t.Errorf("%+v has no timestamp", e)
		}
	}
	slices.Sort(got)
	slices.Sort(kinds)
	if !slices.Equal(got, kinds) {
		t.Errorf("it was told of %q, want %q", got, kinds)
	}
}

// env has the settings of a worker that notifies.
func (r *receiver) env() []string {
	return []string{"NOTIFY_URL=" + r.url, "NOTIFY_SECRET=" + firstSecret, "NOTIFY_ERROR_RATE=25%"}
}

// refused makes an endpoint fail each attempt, and spoilt makes it fail some of the users.
func refused(question) reply { return reply{status: http.StatusBadRequest, body: "told to"} }

func spoilt(q question) reply {
	var results []string
	for i, record := range q.Records {
		result := `{"_id": ` + string(record["_id"]) + `}`
		if i%2 == 0 {
			result = `{"_id": ` + string(record["_id"]) + `, "error": "told to"}`
		}
		results = append(results, result)
	}
	return reply{status: http.StatusOK, body: `{"results": [` + strings.Join(results, ",") + `]}`}
}

// Three workers and two APIs run, and each event is told once: a run that failed for good, also while the receiver is away, the next
// that succeeded, and one of which many records failed. A receiver that hangs holds up no run, and nobody sees the notifications.
func TestNotifications(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	e, r := startEndpoint(t), startReceiver(t)
	settings := append(r.env(), "USER_SYNC_URL="+e.url, "USER_SYNC_SECRET="+firstSecret, "JOB_ATTEMPTS=1", "USER_SYNC_INTERVAL=off")
	for range 3 {
		s.startReady(t, "worker", settings...)
	}
	s.startReady(t, "api")
	s.startReady(t, "api", "PORT="+testbed.FreePort(t))
	api, err := client.New(s.api)
	if err != nil {
		t.Fatal(err)
	}
	run := func(behave func(question) reply) tasks.RunID {
		t.Helper()
		e.reset(firstSecret, behave)
		return s.trigger(t, `{"syncType": "full"}`)
	}

	// The receiver is away at first.
	r.behave(http.StatusServiceUnavailable, nil)
	failed := run(refused)
	s.failure(t, failed)
	testbed.Eventually(t, "a try", func() bool { tries, _ := r.seen(); return len(tries) > 0 })
	r.behave(http.StatusNoContent, nil)
	event := r.wait(t, "run.failed", failed.String())
	if event.Data.Job != userSync || !strings.Contains(event.Data.Error, "told to") || time.Since(event.Timestamp) > waitLimit {
		t.Errorf("the failure is %+v", event)
	}
	if tries, _ := r.seen(); tries[0].ID != event.ID {
		t.Errorf("tried was %+v, taken %+v", tries, event)
	}

	// Neither a cancelled run nor the second success is an event.
	stop := run(func(question) reply { return reply{late: time.Minute} })
	testbed.Eventually(t, "the run to be active", func() bool {
		job, err := api.Job(t.Context(), stop.String())
		return err == nil && job.State == client.StateActive
	})
	if _, err := api.Cancel(t.Context(), stop.String()); err != nil {
		t.Fatal(err)
	}
	s.failure(t, stop)
	recovered := run(nil)
	s.result(t, recovered)
	r.wait(t, "run.recovered", recovered.String())
	s.result(t, run(nil))

	hang := make(chan struct{})
	r.behave(http.StatusNoContent, hang)
	many := run(spoilt)
	s.result(t, many)
	testbed.Eventually(t, "the receiver to hang", func() bool { tries, _ := r.seen(); return tries[len(tries)-1].Type == "records.failed" })
	began := time.Now()
	s.result(t, run(nil))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a run took %s while the receiver hangs", took)
	}
	s.wantNoSignOf(t, api)
	r.behave(http.StatusNoContent, nil)
	close(hang)
	testbed.Eventually(t, "the notification to be delivered", func() bool {
		info, err := s.inspector.GetQueueInfo(jobs.NotifyJob)
		return err == nil && info.Completed == 3 && info.Active+info.Pending+info.Retry == 0
	})
	tries, _ := r.seen()
	if last := tries[len(tries)-1]; last.Data.JobID != many.String() || last.Data.ErrorRate != 0.5 || last.Data.Counts == nil || last.Data.Counts.Failed != 10 {
		t.Errorf("the failed records are %+v", last)
	}

	// Tests, with a receiver that takes them, and one that does not.
	test, err := api.TestNotification(t.Context())
	if err != nil || !test.Delivered || test.Status != http.StatusNoContent || test.Message != "The receiver answered 204 No Content" {
		t.Errorf("the test is %+v, %v", test, err)
	}
	if got := r.wait(t, "test", ""); got.ID != test.ID {
		t.Errorf("the receiver has %+v", got)
	}
	r.behave(http.StatusTeapot, nil)
	test, err = api.TestNotification(t.Context())
	if err != nil || test.Delivered || test.Error != "the receiver answered 418 I'm a teapot" {
		t.Errorf("the test is %+v, %v", test, err)
	}
	r.wantOnce(t, "run.failed", "run.recovered", "test")
}

// wantNoSignOf checks that nothing that lists jobs knows of the notifications.
func (s *system) wantNoSignOf(t *testing.T, api *client.Client) {
	t.Helper()
	for _, path := range []string{"/jobs/status?job=all", "/jobs?pageSize=100", "/job-types", "/schedules", "/health", "/metrics"} {
		status, body := s.request(t, http.MethodGet, path, "")
		if status != http.StatusOK && path != "/health" || strings.Contains(string(body), `"`+jobs.NotifyJob) || strings.Contains(string(body), ":"+jobs.NotifyJob) {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	if status, err := api.Status(t.Context(), client.AllJobs); err != nil || status.Counts.Active+status.Counts.Waiting+status.Counts.Delayed != 0 {
		t.Errorf("the status is %+v, %v", status, err)
	}
	for _, path := range []string{"/jobs/trigger/notify", "/jobs/retry-failed"} {
		if status, body := s.request(t, http.MethodPost, path, `{"job": "notify"}`); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("POST %s: %d %s", path, status, body)
		}
	}
}

// Without a receiver there is nobody to test, and nothing is written.
func TestNobodyIsNotified(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	e := startEndpoint(t)
	e.reset(firstSecret, refused)
	s.startReady(t, "worker", "USER_SYNC_URL="+e.url, "USER_SYNC_SECRET="+firstSecret, "JOB_ATTEMPTS=1")
	s.startReady(t, "api")
	s.failure(t, s.trigger(t, `{"syncType": "full"}`))
	if status, body := s.request(t, http.MethodPost, "/notify/test", ""); status != http.StatusConflict || !strings.Contains(string(body), "NOTIFY_URL") {
		t.Errorf("got %d %s", status, body)
	}
	for _, pattern := range []string{"*notices*", "*notifies*", "*failing*", "*:schedule", "*missed*", "asynq:*notify*"} {
		if keys, err := s.rdb.Keys(t.Context(), pattern).Result(); err != nil || len(keys) > 0 {
			t.Errorf("%s: %q, %v", pattern, keys, err)
		}
	}
}

// The scheduler is killed. Two processes notice it, and one event tells of it.
func TestMissedTicksAreTold(t *testing.T) {
	t.Parallel()
	s := setup(t)
	r := startReceiver(t)
	s.startReady(t, "worker", r.env()...)
	scheduler := s.startReady(t, "scheduler", "USER_SYNC_INTERVAL=1s")
	j := jobs.New(s.rdb, codex.Registry(), slog.New(slog.DiscardHandler))
	user, _ := codex.Registry().Lookup(userSync)
	testbed.Eventually(t, "a tick and the schedule", func() bool {
		last, err := j.LastTick(t.Context(), user)
		written, failed := s.rdb.Exists(t.Context(), "codex-jobs:{user-sync}:schedule").Result()
		return err == nil && failed == nil && !last.IsZero() && written == 1
	})
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for range 2 {
		watching.Go(func() { j.WatchTicks(ctx, 3*time.Second, 200*time.Millisecond) })
	}
	scheduler.Kill()
	event := r.wait(t, "ticks.missed", "")
	if event.Data.Job != userSync || event.Data.Schedule != "@every 1s" || !event.Data.Missed.After(event.Data.Previous) {
		t.Errorf("got %+v", event)
	}
	r.wantOnce(t, "ticks.missed")
}
