//go:build observability

// The running system has the metrics that deploy/prometheus and deploy/grafana ask for: each query of the dashboard has an
// answer, and each alert has data, is silent on a healthy system, and fires on a broken one. The prometheus on the PATH
// scrapes the real programs.

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	deployed = "../deploy/"
	// queryLimit is how long Prometheus may take to have scraped what a query needs.
	queryLimit = 90 * time.Second
)

func TestObservability(t *testing.T) {
	const users = 400
	s := setup(t)
	documents := messyUsers(users)
	s.insert(t, documents)
	mongo, uri := s.faultyMongo(t)
	redis := testbed.NewProxy(t, s.redis.Addr)
	var refusing atomic.Bool
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refusing.Load() {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(endpoint.Close)
	s.env = append(append(s.env, redisEnv(redis.Addr)...), "MONGODB_URI="+uri, "SYNC_RANGE_SIZE=100", "SYNC_BATCH_SIZE=10",
		"JOB_ATTEMPTS=1", "USER_SYNC_INTERVAL=5s", "USER_SYNC_URL="+endpoint.URL, "NOTIFY_URL="+endpoint.URL)

	ports := map[string][]string{"api": {testbed.FreePort(t)}, "scheduler": {testbed.FreePort(t)}, "worker": {testbed.FreePort(t), testbed.FreePort(t)}}
	p := startPrometheus(t, ports)
	running := make(map[string][]*process)
	start := func(names ...string) {
		for _, name := range names {
			for _, port := range ports[name] {
				process := s.start(t, name, "ADMIN_PORT="+port)
				process.waitForLog(t, "Admin port ready", nil)
				running[name] = append(running[name], process)
			}
		}
	}
	stop := func(name string) {
		for _, process := range running[name] {
			process.stop(t)
		}
	}

	// A system that never had a worker, nor a scheduler.
	start("api")
	p.wantAlarm(t, "CodexJobsNoWorker", "CodexJobsNoScheduler")

	start("scheduler", "worker")
	testbed.Eventually(t, "all to be well", func() bool {
		h, _ := s.health(t)
		return h.Jobs.Initialized && h.Jobs.Workers == 2
	})
	for _, job := range []string{"user-sync", "project-sync"} {
		s.triggerJobAgain(t, job)
	}
	running["scheduler"][0].waitForLogs(t, 2, "Tick enqueued", nil)

	var unanswered map[string]string
	queries := dashboardQueries(t)
	defer func() {
		for query, answer := range unanswered {
			t.Logf("no data: %s\nPrometheus says %s", query, answer)
		}
	}()
	testbed.Within(t, queryLimit, fmt.Sprintf("the answers to the %d queries of the dashboard", len(queries)), func() bool {
		s.triggerJobAgain(t, "user-sync")
		unanswered = make(map[string]string)
		for _, query := range queries {
			if answer := p.ask(t, query); !answer.hasData() {
				unanswered[query] = answer.text
			}
		}
		return len(unanswered) == 0
	})
	t.Logf("all %d queries of the dashboard are answered with data", len(queries))

	// The alerts have data, so that they are silent because all is well.
	for _, rule := range p.rules(t) {
		for _, selector := range regexp.MustCompile(`(?:codex_jobs_\w+|\bup)(?:\{[^}]*\})?`).FindAllString(rule.Query, -1) {
			if answer := p.ask(t, selector); !answer.hasData() {
				t.Errorf("%s looks at %s, which is not there: %s", rule.Name, selector, answer.text)
			}
		}
	}
	testbed.Within(t, queryLimit, "no alert to have a reason", func() bool {
		for _, rule := range p.rules(t) {
			if rule.State == "firing" {
				t.Fatalf("%s fires on a system that is well: %+v", rule.Name, rule)
			}
			if p.ask(t, rule.Query).hasData() {
				return false
			}
		}
		return true
	})

	// All records fail, and with them the run.
	for _, d := range documents {
		if err := mongo.FailUpdates(121, "Document failed validation", d[0].Value); err != nil {
			t.Fatal(err)
		}
	}
	s.triggerJobAgain(t, "user-sync")
	p.wantAlarm(t, "CodexJobsRunsFailing", "CodexJobsRecordsFailing")
	refusing.Store(true)
	s.triggerJobAgain(t, "user-sync")
	p.wantAlarm(t, "CodexJobsEndpointRefuses")
	stop("worker")
	p.wantAlarm(t, "CodexJobsNoWorker", "CodexJobsBacklogGrowing")
	p.wantNoAlarm(t, "CodexJobsTickMissed")
	stop("scheduler")
	p.wantAlarm(t, "CodexJobsNoScheduler", "CodexJobsTickMissed")
	p.wantNoAlarm(t, "CodexJobsRedisDown")
	redis.Down()
	p.wantAlarm(t, "CodexJobsRedisDown")
	p.wantNoAlarm(t, "CodexJobsNoWorker", "CodexJobsTickMissed")
	stop("api")
	p.wantAlarm(t, "CodexJobsNotWatched")
}

// triggerJobAgain triggers a full run, or joins a waiting one.
func (s *system) triggerJobAgain(t *testing.T, job string) {
	t.Helper()
	if status, answer := s.request(t, http.MethodPost, "/jobs/trigger/"+job, `{"syncType": "full"}`); status != http.StatusOK {
		t.Fatalf("triggering %s: %d %s", job, status, answer)
	}
}

// dashboardQueries returns the dashboard's queries, as Grafana sends them with all values selected.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(deployed + "grafana/dashboards/codex-jobs.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels     []struct{ Targets []struct{ Expr string } }
		Templating struct {
			List []struct {
				Name, AllValue string
				Query          struct{ Query string }
			}
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := []string{"$__rate_interval", "20s", "$__interval", "20s", "$__range", "1m"}
	var queries []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, "$"+v.Name, v.AllValue)
		m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Query.Query)
		if m == nil {
			t.Fatalf("the variable %s is %s", v.Name, v.Query.Query)
		}
		queries = append(queries, fmt.Sprintf(`count by (%s) (%s)`, m[2], m[1]))
	}
	replacer := strings.NewReplacer(variables...)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			query := replacer.Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("a variable is not known to this test: %s", query)
			}
			queries = append(queries, query)
		}
	}
	return queries
}

// prometheus is a Prometheus that runs with the shipped configuration.
type prometheus struct{ url string }

// startPrometheus runs one until the test ends. In place of the names of the programs it gets their addresses, and it
// scrapes every second.
func startPrometheus(t *testing.T, ports map[string][]string) prometheus {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(deployed + "prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	var configuration map[string]any
	if err := yaml.Unmarshal(text, &configuration); err != nil {
		t.Fatal(err)
	}
	configuration["global"] = map[string]string{"scrape_interval": "1s", "evaluation_interval": "1s"}
	for _, scrape := range configuration["scrape_configs"].([]any) {
		scrape := scrape.(map[string]any)
		var targets []string
		for _, port := range ports[strings.TrimPrefix(scrape["job_name"].(string), "codex-jobs-")] {
			targets = append(targets, "127.0.0.1:"+port)
		}
		delete(scrape, "dns_sd_configs")
		scrape["static_configs"] = []any{map[string]any{"targets": targets}}
	}
	if text, err = yaml.Marshal(configuration); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range configuration["rule_files"].([]any) {
		rules, err := os.ReadFile(deployed + "prometheus/" + name.(string))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name.(string)), rules, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	address := "127.0.0.1:" + testbed.FreePort(t)
	server, err := procs.Start(exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address), procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Kill()
		if t.Failed() {
			t.Logf("Prometheus' log ends with\n%s", server.Log().Tail(shownLines))
		}
	})
	p := prometheus{"http://" + address}
	testbed.Eventually(t, "Prometheus to be ready", func() bool {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// answer is an answer of Prometheus to a query: the text and the values.
type answer struct {
	text   string
	values []string
}

// hasData reports whether one of the values is a number.
func (a answer) hasData() bool {
	return slices.ContainsFunc(a.values, func(value string) bool { return value != "NaN" })
}

// get decodes the data of an answer of Prometheus, and returns its text.
func (p prometheus) get(t *testing.T, path string, data any) string {
	t.Helper()
	status, text := fetch(t, p.url+"/api/v1/"+path)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, status, text)
	}
	if err := json.Unmarshal([]byte(text), &struct{ Data any }{data}); err != nil {
		t.Fatalf("%s: %s: %v", path, text, err)
	}
	return text
}

func (p prometheus) ask(t *testing.T, query string) answer {
	t.Helper()
	var data struct{ Result []struct{ Value [2]any } }
	a := answer{text: p.get(t, "query?query="+url.QueryEscape(query), &data)}
	for _, series := range data.Result {
		a.values = append(a.values, series.Value[1].(string))
	}
	return a
}

type rule struct{ Name, Query, State, Health, LastError string }

// rules returns the loaded rules, once Prometheus has evaluated each of them.
func (p prometheus) rules(t *testing.T) []rule {
	t.Helper()
	var all []rule
	testbed.Eventually(t, "all rules to be evaluated", func() bool {
		var data struct{ Groups []struct{ Rules []rule } }
		p.get(t, "rules", &data)
		all = nil
		for _, group := range data.Groups {
			all = append(all, group.Rules...)
		}
		for _, r := range all {
			if r.Health == "err" || r.LastError != "" {
				t.Fatalf("%s: %s", r.Name, r.LastError)
			}
		}
		return len(all) > 0 && !slices.ContainsFunc(all, func(r rule) bool { return r.Health != "ok" })
	})
	return all
}

// alarm reports whether the condition of an alert holds, even if only for a moment.
func (p prometheus) alarm(t *testing.T, name string) bool {
	t.Helper()
	known := false
	for _, r := range p.rules(t) {
		if r.Name == name {
			known = true
			if p.ask(t, r.Query).hasData() {
				return true
			}
		}
	}
	if !known {
		t.Fatalf("there is no alert %s", name)
	}
	return false
}

// wantAlarm waits until the condition of each of the alerts holds.
func (p prometheus) wantAlarm(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		testbed.Within(t, queryLimit, "a reason for "+name, func() bool { return p.alarm(t, name) })
	}
}

// wantNoAlarm waits until the condition of none of the alerts holds.
func (p prometheus) wantNoAlarm(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		testbed.Within(t, queryLimit, "no reason for "+name, func() bool { return !p.alarm(t, name) })
	}
}
