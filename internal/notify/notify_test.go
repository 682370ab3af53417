package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/notify"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

// What each answer of the receiver means, by the age of the event.
func TestAnswers(t *testing.T) {
	t.Parallel()
	status := func(code int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if len(header) > 0 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	const ok, givenUp = -1, -2
	for name, test := range map[string]struct {
		kind   string
		age    time.Duration
		answer http.HandlerFunc
		want   time.Duration // the wait; ok, or givenUp
		reason string
	}{
		"200":                   {jobs.EventRunFailed, 0, status(200), ok, ""},
		"204":                   {jobs.EventRunFailed, 0, status(204), ok, ""},
		"202 of an old one":     {jobs.EventRunFailed, 30 * time.Hour, status(202), ok, ""},
		"503":                   {jobs.EventRunFailed, 0, status(503), 5 * time.Second, "the receiver answered 503 Service Unavailable"},
		"503 for a minute":      {jobs.EventRunFailed, time.Minute, status(503), time.Minute, "503"},
		"503 for six hours":     {jobs.EventRunFailed, 6 * time.Hour, status(503), time.Hour, "503"},
		"503, soon given up":    {jobs.EventRunFailed, 24*time.Hour - 10*time.Minute, status(503), 10 * time.Minute, "503"},
		"429 with a time":       {jobs.EventRunFailed, 0, status(429, "Retry-After", "77"), 77 * time.Second, "429"},
		"400":                   {jobs.EventTicksMissed, 0, status(400), 5 * time.Second, "400"},
		"a redirect":            {jobs.EventTicksMissed, 0, status(302, "Location", "http://elsewhere/?token=s3cret"), 5 * time.Second, `302 Found; it redirects to "http://elsewhere/", and`},
		"no answer in time":     {jobs.EventTicksMissed, 0, hang, 5 * time.Second, "the receiver did not answer within 200ms"},
		"503 for a day":         {jobs.EventRunFailed, 24 * time.Hour, status(503), givenUp, "given up after 24h0m0s: the receiver answered 503"},
		"503 at a test":         {jobs.EventTest, 0, status(503), givenUp, "the receiver answered 503 Service Unavailable"},
		"no answer, at a test":  {jobs.EventTest, 0, hang, givenUp, "the receiver did not answer within 200ms"},
		"an invalid timestamp?": {jobs.EventRunFailed, -1, status(503), givenUp, "given up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := httptest.NewServer(test.answer)
			t.Cleanup(receiver.Close)
			client, err := webhook.New(webhook.Options{URL: receiver.URL, Timeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			registry := prometheus.NewRegistry()
			event := &jobs.Notification{Type: test.kind, Timestamp: time.Now().UTC().Add(-test.age).Format(tasks.TimestampLayout), Data: json.RawMessage(`{}`)}
			if test.age < 0 {
				event.Timestamp = "nonsense"
			}
			result, err := notify.Handler(client, notify.NewMetrics(registry))(t.Context(), &jobtype.Attempt{
				ID: tasks.TriggerID(jobs.NotifyJob, time.Now()), Payload: event, Log: slog.New(slog.DiscardHandler),
			})
			outcome := "failed"
			wait := new(jobtype.WaitError)
			switch {
			case test.want == ok:
				outcome = "delivered"
				if err != nil || result == nil {
					t.Errorf("%v, %v", result, err)
				}
			case !strings.Contains(err.Error(), test.reason) || strings.Contains(err.Error(), "s3cret"):
				t.Errorf("the reason is %v", err)
			case test.want == givenUp:
				if test.kind != jobs.EventTest {
					outcome = "given_up"
				}
				if !jobtype.IsPermanent(err) {
					t.Errorf("it is tried again: %v", err)
				}
			case !errors.As(err, &wait) || wait.After < test.want-2*time.Second || wait.After > test.want+2*time.Second:
				t.Errorf("it waits for %s, want %s: %v", wait.After, test.want, err)
			}
			metrics := telemetrytest.Gather(t, registry)
			for _, name := range []string{"delivered", "failed", "given_up"} {
				if got := metrics[`codex_jobs_notifications_total{outcome="`+name+`"}`]; (got == 1) != (name == outcome) {
					t.Errorf("%s is counted %v times, and the outcome is %s", name, got, outcome)
				}
			}
		})
	}
}

// A test that no worker takes ends with its deadline, and is not sent later. Without a worker that notifies there is none.
func TestOfNobody(t *testing.T) {
	t.Parallel()
	rdb := redistest.Client(t, redistest.Options(t))
	log := slog.New(slog.DiscardHandler)
	system := jobs.New(rdb, codex.Registry(), log)
	queue := notify.Queue(system, log)
	if _, err := notify.Test(t.Context(), system, queue); !errors.Is(err, notify.ErrNobody) {
		t.Errorf("without a worker: %v", err)
	}
	if err := system.Notify(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	outcome, err := notify.Test(ctx, system, queue)
	if err != nil || outcome.Status != 0 || outcome.Reason != "no worker with NOTIFY_URL has taken it in time" {
		t.Errorf("%+v, %v", outcome, err)
	}
	if n := rdb.LLen(t.Context(), "asynq:{notify}:pending").Val(); n != 0 {
		t.Errorf("%d tests wait", n)
	}
}
