package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
)

// scrape returns the metrics, and how long they took.
func (b *testBundle) scrape(t *testing.T) (metrics telemetrytest.Metrics, took time.Duration) {
	t.Helper()
	a := b.get(t, "/metrics")
	if contentType := a.header.Get("Content-Type"); a.status != http.StatusOK || !strings.HasPrefix(contentType, "text/plain") {
		t.Fatalf("/metrics: %d, %s: %s", a.status, contentType, a.text)
	}
	return telemetrytest.Parse(t, a.text), a.took
}

// answered returns how many requests the metrics have of each method, route and code.
func answered(metrics telemetrytest.Metrics) map[string]float64 {
	const prefix, suffix = `codex_jobs_http_request_duration_seconds_count{code="`, `"}`
	counts := make(map[string]float64)
	for series, n := range metrics {
		if labels, ok := strings.CutPrefix(series, prefix); ok {
			values := strings.NewReplacer(`",method="`, " ", `",route="`, " ").Replace(strings.TrimSuffix(labels, suffix))
			counts[values] = n
		}
	}
	return counts
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := setup(t)
	metrics, _ := b.scrape(t)
	for _, name := range syncs().Names() {
		for _, outcome := range []string{"enqueued", "coalesced"} {
			series := fmt.Sprintf("codex_jobs_triggers_total{job_type=%q,outcome=%q}", name, outcome)
			if value, ok := metrics[series]; !ok || value != 0 {
				t.Errorf("at the beginning %s is %v, there at all: %v", series, value, ok)
			}
		}
	}
	b.trigger(t, "user-sync", "")
	b.trigger(t, "user-sync", "")
	b.trigger(t, "user-sync", `{"syncType": "full"}`)
	b.trigger(t, "issue-sync", "")
	b.post(t, "/jobs/trigger/user-sync", `{"syncType": "half"}`)
	b.post(t, "/jobs/trigger/users", "")
	b.get(t, "/jobs/status")
	b.request(t, http.MethodHead, "/livez", "")
	metrics, _ = b.scrape(t)
	for series, want := range map[string]float64{
		`codex_jobs_redis_up`: 1, `codex_jobs_redis_writable`: 1,
		`codex_jobs_triggers_total{job_type="user-sync",outcome="enqueued"}`:                               2,
		`codex_jobs_triggers_total{job_type="user-sync",outcome="coalesced"}`:                              1,
		`codex_jobs_triggers_total{job_type="issue-sync",outcome="enqueued"}`:                              1,
		`codex_jobs_triggers_total{job_type="project-sync",outcome="enqueued"}`:                            0,
		`codex_jobs_queue_tasks{job_type="user-sync",state="waiting",unit="run"}`:                          2,
		`codex_jobs_queue_tasks{job_type="issue-sync",state="waiting",unit="run"}`:                         1,
		`codex_jobs_schedule_interval_seconds{job_type="user-sync"}`:                                       1200,
		`codex_jobs_http_request_duration_seconds_bucket{code="200",method="HEAD",route="/livez",le="10"}`: 1,
	} {
		if metrics[series] != want {
			t.Errorf("%s is %v, want %v", series, metrics[series], want)
		}
	}
	want := map[string]float64{
		"200 GET /metrics": 1, "200 POST /jobs/trigger/:job": 4, "400 POST /jobs/trigger/:job": 1, "404 POST /jobs/trigger/:job": 1,
		"200 GET /jobs/status": 1, "200 HEAD /livez": 1,
	}
	if got := answered(metrics); !maps.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
}

// Clients cannot add series.
func TestMadeUpRequestsAddNoSeries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.undescribed = true
	locked := setupLocked(t)
	locked.undescribed = true
	send := func(i int) {
		b.get(t, fmt.Sprintf("/made/up/%d", i))
		b.get(t, fmt.Sprintf("/jobs/%d:user-sync", i))
		b.get(t, fmt.Sprintf("/dashboard/static/%d", i))
		b.post(t, fmt.Sprintf("/jobs/trigger/made-up-%d", i), "")
		b.request(t, fmt.Sprintf("FOO%d", i), "/jobs/status", "")
		b.request(t, fmt.Sprintf("FOO%d", i), fmt.Sprintf("/made/up/%d", i), "")
		locked.get(t, fmt.Sprintf("/made/up/%d", i))
		locked.request(t, fmt.Sprintf("FOO%d", i), "/jobs/status", "")
	}
	send(0)
	viewer := locked.as(readKey)
	for _, api := range []*testBundle{b, viewer} {
		api.scrape(t) // so that it has a series of its own
	}
	before, _ := b.scrape(t)
	beforeLocked, _ := viewer.scrape(t)
	const n = 1000
	for i := 1; i <= n; i++ {
		send(i)
	}
	after, _ := b.scrape(t)
	afterLocked, _ := viewer.scrape(t)
	if len(after) != len(before) || len(afterLocked) != len(beforeLocked) {
		t.Errorf("%d and %d series have become %d and %d", len(before), len(beforeLocked), len(after), len(afterLocked))
	}
	counts, refused := answered(after), answered(afterLocked)
	for values, want := range map[string]float64{
		"404 GET unknown": n + 1, "404 GET /jobs/:id": n + 1, "404 POST /jobs/trigger/:job": n + 1, "405 other unknown": n + 1, "404 other unknown": n + 1,
	} {
		if counts[values] != want {
			t.Errorf("%q were %v, want %v", values, counts[values], want)
		}
	}
	for values, want := range map[string]float64{"401 GET refused": n + 1, "401 other refused": n + 1} {
		if refused[values] != want {
			t.Errorf("%q were %v, want %v", values, refused[values], want)
		}
	}
	if t.Failed() {
		t.Logf("answered %v; with keys %v", counts, refused)
	}
}

// All requests that the gate refuses are counted in one series.
func TestRefusedRequestsAreCounted(t *testing.T) {
	t.Parallel()
	b := setupLocked(t)
	before, _ := b.as(readKey).scrape(t)
	b.get(t, "/jobs/status")
	b.get(t, "/metrics")
	b.as(readKey).post(t, "/jobs/pause", "")
	b.as(writeKey).post(t, "/jobs/pause", strings.Repeat(" ", 1<<17))
	after, _ := b.as(readKey).scrape(t)
	got := answered(after)
	for values, n := range answered(before) {
		if got[values] -= n; got[values] == 0 {
			delete(got, values)
		}
	}
	want := map[string]float64{"401 GET refused": 2, "403 POST refused": 1, "413 POST refused": 1, "200 GET /metrics": 1}
	if !maps.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
}
