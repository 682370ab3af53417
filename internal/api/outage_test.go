package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// redisRoutes are the requests that need Redis.
var redisRoutes = []struct{ method, path, body string }{
	{http.MethodGet, "/jobs/status", ""},
	{http.MethodGet, "/jobs/status?job=all", ""},
	{http.MethodGet, "/jobs", ""},
	{http.MethodGet, "/schedules", ""},
	{http.MethodPost, "/jobs/trigger/user-sync", ""},
	{http.MethodPost, "/jobs/trigger/issue-sync", `{"syncType": "full"}`},
	{http.MethodPost, "/jobs/pause", ""},
	{http.MethodPost, "/jobs/resume", ""},
	{http.MethodPost, "/jobs/cleanup", ""},
}

func TestRedisAway(t *testing.T) {
	t.Parallel()
	for _, outage := range []struct {
		name      string
		away, yet func(*testbed.Proxy)
	}{
		{"down", (*testbed.Proxy).Down, (*testbed.Proxy).Up},
		{"hanging", (*testbed.Proxy).Freeze, (*testbed.Proxy).Thaw},
	} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connected before: %v", outage.name, warm), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				first := ""
				if warm { // as many connections as there will be requests
					first = b.trigger(t, "project-sync", "").Data.JobID
					b.allRoutes(t, 5, func(string, answer) {})
				}
				outage.away(b.proxy)
				for range 2 { // once with the old connections, once without
					b.allRoutes(t, 5, func(route string, a answer) {
						if a.status != http.StatusServiceUnavailable || a.took > b.limit(answerLimit) {
							t.Errorf("%s: %d after %s: %s", route, a.status, a.took, a.text)
						}
						refused(t, a, "Redis is not available")
					})
				}
				health := b.dependencies(t, http.StatusServiceUnavailable, "DEGRADED", "disconnected", "connected")
				if jobs, _ := health["jobs"].(map[string]any); jobs["initialized"] != false || fmt.Sprint(jobs["missing"]) != "[Redis]" {
					t.Errorf("of the jobs, the health says %v", jobs)
				}
				if a := b.get(t, "/readyz"); a.status != http.StatusServiceUnavailable || a.took > b.limit(answerLimit) {
					t.Errorf("/readyz: %d after %s", a.status, a.took)
				}
				if a := b.get(t, "/livez"); a.status != http.StatusOK || a.took > b.limit(time.Second) {
					t.Errorf("/livez: %d after %s", a.status, a.took)
				}
				metrics, took := b.scrape(t)
				if up, said := metrics["codex_jobs_redis_up"]; !said || up != 0 || took > b.limit(answerLimit) {
					t.Errorf("/metrics: Redis is up: %v (%v), after %s", up, said, took)
				}
				if a := b.get(t, "/dashboard/"); a.status != http.StatusOK || a.took > b.limit(time.Second) { // the page shows the error itself
					t.Errorf("/dashboard/: %d after %s", a.status, a.took)
				}
				if a := b.get(t, "/dashboard/api/queues"); a.status/100 != 5 || a.took > b.limit(answerLimit) {
					t.Errorf("the dashboard's API: %d after %s", a.status, a.took)
				}
				// A wrong request gets its message as always.
				if a := b.post(t, "/jobs/trigger/user-sync", `{"batchSize": 0}`); a.status != http.StatusBadRequest {
					t.Errorf("a bad request: %d %s", a.status, a.text)
				}

				outage.yet(b.proxy)
				testbed.Eventually(t, "service to be back", func() bool { return b.get(t, "/readyz").status == http.StatusOK })
				// A busy machine may need more than one round.
				refused := []string{""}
				for back := time.Now(); len(refused) > 0; {
					refused = nil
					b.allRoutes(t, 5, func(route string, a answer) {
						if a.status != http.StatusOK {
							refused = append(refused, fmt.Sprintf("%s: %d %s", route, a.status, a.text))
						}
					})
					if len(refused) > 0 && time.Since(back) > b.limit(answerLimit) {
						t.Fatalf("after the outage: %q", refused)
					}
				}
				b.dependencies(t, http.StatusOK, "OK", "connected", "connected")
				if metrics, _ := b.scrape(t); metrics["codex_jobs_redis_up"] != 1 {
					t.Errorf("/metrics, after the outage: Redis is up: %v", metrics["codex_jobs_redis_up"])
				}
				b.queues(t)
				if s := b.status(t, ""); s.Counts.Waiting != 1 {
					t.Errorf("%d user syncs wait after all the triggers, want 1", s.Counts.Waiting)
				}
				if warm {
					if again := b.trigger(t, "project-sync", ""); again.Data.JobID != first {
						t.Errorf("the run that waited before is %s now, it was %s", again.Data.JobID, first)
					}
				}
				if len(b.log.Find(procs.Match{Attrs: procs.Attrs{"level": "WARN"}})) == 0 {
					t.Error("the log has no warning")
				}
			})
		}
	}
}

// allRoutes sends every request of redisRoutes some times at once.
func (b *testBundle) allRoutes(t *testing.T, times int, check func(route string, a answer)) {
	t.Helper()
	var mu sync.Mutex
	answers := make(map[string]answer)
	var clients sync.WaitGroup
	for _, route := range redisRoutes {
		for i := range times {
			clients.Go(func() {
				a, err := b.try(t.Context(), route.method, route.path, route.body)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("%s %s: %v", route.method, route.path, err)
					return
				}
				answers[fmt.Sprintf("%s %s (%d)", route.method, route.path, i)] = a
			})
		}
	}
	clients.Wait()
	for route, a := range answers {
		check(route, a)
	}
}

// dependencies checks the health of the system, of Redis and of MongoDB, and that the answer comes in time.
func (b *testBundle) dependencies(t *testing.T, code int, status, redis, mongodb string) map[string]any {
	t.Helper()
	a := b.get(t, "/health")
	var problems []string
	body := a.json(t)
	if a.status != code || body["status"] != status {
		problems = append(problems, fmt.Sprintf("want %d %s", code, status))
	}
	for name, want := range map[string]string{"redis": redis, "database": mongodb} {
		d, _ := body[name].(map[string]any)
		if milliseconds, ok := d["responseTime"].(float64); d["status"] != want || !ok || milliseconds < 0 || milliseconds > float64(b.limit(answerLimit).Milliseconds()) {
			problems = append(problems, fmt.Sprintf("want %s %s", name, want))
		}
	}
	if a.took > b.limit(answerLimit) {
		problems = append(problems, "it took "+a.took.String())
	}
	if problems != nil {
		t.Errorf("the health is %d %s: %s", a.status, a.text, strings.Join(problems, ", "))
	}
	return body
}

func TestMongoDBAway(t *testing.T) {
	t.Parallel()
	for _, outage := range []struct {
		name string
		away func(*faultproxy.Proxy)
	}{
		{"down", (*faultproxy.Proxy).Refuse},
		{"hanging", (*faultproxy.Proxy).Swallow},
	} {
		for _, warm := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, connected before: %v", outage.name, warm), func(t *testing.T) {
				t.Parallel()
				proxy, err := faultproxy.New(mongoURI(t))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(proxy.Close)
				uri, err := proxy.URI(mongoURI(t))
				if err != nil {
					t.Fatal(err)
				}
				client := connectMongoDB(t, uri)
				b := setup(t, func(o *api.Options) { o.Database = client })
				if warm {
					b.dependencies(t, http.StatusOK, "OK", "connected", "connected")
				}
				outage.away(proxy)
				b.dependencies(t, http.StatusServiceUnavailable, "DEGRADED", "connected", "disconnected")
				// The jobs go on without it.
				b.allRoutes(t, 1, func(route string, a answer) {
					if a.status != http.StatusOK {
						t.Errorf("%s: %d %s", route, a.status, a.text)
					}
				})
				for _, probe := range []string{"/livez", "/readyz"} {
					if a := b.get(t, probe); a.status != http.StatusOK {
						t.Errorf("%s: %d %s", probe, a.status, a.text)
					}
				}
				if err := proxy.Heal(); err != nil {
					t.Fatal(err)
				}
				testbed.Eventually(t, "MongoDB to be back", func() bool { return b.get(t, "/health").status == http.StatusOK })
				b.dependencies(t, http.StatusOK, "OK", "connected", "connected")
			})
		}
	}
}

func TestBothAway(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *api.Options) { o.Database = database{fmt.Errorf("on purpose")} })
	b.proxy.Freeze()
	b.dependencies(t, http.StatusServiceUnavailable, "DEGRADED", "disconnected", "disconnected")
	b.proxy.Thaw()
	b.dependencies(t, http.StatusServiceUnavailable, "DEGRADED", "connected", "disconnected")
}

// The health says that a worker takes no runs, because the others use another database.
func TestHealthOfExcludedWorkers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, database := range []string{"A", "B"} {
		if _, _, err := b.jobs.TakePart(t.Context(), "worker on "+database, jobs.Terms{Database: database}, false); err != nil {
			t.Fatal(err)
		}
	}
	var health struct{ Jobs struct{ Warnings []string } }
	b.ok(t, b.get(t, "/health"), &health)
	if want := "workers that take no runs, because the others use another database, or have other endpoints: 1"; !slices.Equal(health.Jobs.Warnings, []string{want}) {
		t.Errorf("the warnings are %q", health.Jobs.Warnings)
	}
	if err := b.jobs.Withdraw(t.Context(), "worker on B"); err != nil {
		t.Fatal(err)
	}
	if a := b.get(t, "/health"); strings.Contains(a.text, "warnings") {
		t.Errorf("afterwards: %s", a.text)
	}
}
