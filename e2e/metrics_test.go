package e2e_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// watched starts each program with an admin port, and returns the addresses of the ports.
func (s *system) watched(t *testing.T) (admin map[string]string, all map[string]*process) {
	t.Helper()
	admin, all = make(map[string]string), make(map[string]*process)
	for _, name := range deployables {
		port := testbed.FreePort(t)
		admin[name] = "http://127.0.0.1:" + port
		all[name] = s.start(t, name, "ADMIN_PORT="+port)
		all[name].waitForLog(t, "Admin port ready", attrs{"addr": "127.0.0.1:" + port})
	}
	return admin, all
}

// fetch returns the answer to a GET.
func fetch(t *testing.T, url string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, data := send(t, request)
	return status, string(data)
}

// Each program is ready while its servers answer, and alive even without them.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := setup(t)
	redis, mongo := testbed.NewProxy(t, s.redis.Addr), s.mongoProxy(t)
	redis.Down()
	mongo.Down()
	s.env = append(append(s.env, redisEnv(redis.Addr)...), s.mongoEnv(t, mongo))
	admin, _ := s.watched(t)
	ready := func() (names []string) {
		for _, name := range deployables {
			if status, _ := fetch(t, admin[name]+"/livez"); status != http.StatusOK {
				t.Errorf("%s: /livez says %d", name, status)
			}
			switch status, _ := fetch(t, admin[name]+"/readyz"); status {
			case http.StatusOK:
				names = append(names, name)
			case http.StatusServiceUnavailable:
			default:
				t.Errorf("%s: /readyz says %d", name, status)
			}
		}
		return names
	}
	if names := ready(); names != nil {
		t.Errorf("without any server %v are ready", names)
	}
	for _, step := range []struct {
		what string
		do   func()
		want []string
	}{
		{"Redis comes", redis.Up, []string{"api", "scheduler"}},
		{"MongoDB comes", mongo.Up, deployables},
		{"Redis hangs", redis.Freeze, nil},
		{"Redis goes on", redis.Thaw, deployables},
		{"MongoDB goes", mongo.Down, []string{"api", "scheduler"}},
	} {
		step.do()
		testbed.Eventually(t, step.what+", and then these are ready: "+strings.Join(step.want, ", "), func() bool { return slices.Equal(ready(), step.want) })
	}
}

// A mongodb+srv host that DNS does not know is a server that is away: the API serves, and the worker waits.
func TestHostThatIsNotFound(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.env = append(s.env, "MONGODB_URI=mongodb+srv://nowhere.codex.invalid/shop", "MONGODB_DATABASE=")
	worker := s.start(t, "worker")
	worker.waitForLog(t, "Using the MongoDB database", attrs{"database": "shop", "namedBy": "the path of MONGODB_URI"})
	worker.waitForLog(t, "Waiting for MongoDB", attrs{"level": "WARN"})
	s.start(t, "api").waitForLog(t, "API ready", nil)
	if status, text := fetch(t, s.api+"/health"); status != http.StatusServiceUnavailable || !strings.Contains(text, `"database":{"status":"disconnected"`) {
		t.Errorf("/health says %d: %s", status, text)
	}
	if status, _ := fetch(t, s.api+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz says %d", status)
	}
}

// metric describes a metric, from docs/metrics.md or from a program.
type metric struct {
	kind string
	// labels are the values of each label; nil where any value is valid.
	labels map[string][]string
}

// ours is the prefix of our own metrics.
const ours = "codex_jobs_"

var (
	typeLine   = regexp.MustCompile(`(?m)^# TYPE (\w+) (\w+)$`)
	labelValue = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// exposed returns our own metrics in the answer of a program, and their number of series.
func exposed(t *testing.T, text string) (found map[string]metric, series int) {
	t.Helper()
	found = make(map[string]metric)
	for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(m[1], ours) {
			found[m[1]] = metric{m[2], make(map[string][]string)}
		}
	}
	for one := range telemetrytest.Parse(t, text) {
		name, labels, _ := strings.Cut(one, "{")
		if _, known := found[name]; !known {
			name = name[:max(0, strings.LastIndexByte(name, '_'))] // a histogram's _bucket, _sum or _count
		}
		if !strings.HasPrefix(name, ours) {
			continue
		}
		if !strings.Contains(name, "_http_") { // their series depend on the requests
			series++
		}
		values := found[name].labels
		for _, label := range labelValue.FindAllStringSubmatch(labels, -1) {
			if label[1] != "le" && !slices.Contains(values[label[1]], label[2]) {
				values[label[1]] = append(values[label[1]], label[2])
			}
		}
	}
	return found, series
}

// documented returns what docs/metrics.md says of the metrics of each program, and of how many series they have.
func documented(t *testing.T) (metrics map[string]map[string]metric, series map[string]int) {
	t.Helper()
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string][]string{
		"Every program": deployables, "Worker and API": {"worker", "api"}, "Worker": {"worker"}, "Scheduler": {"scheduler"}, "API": {"api"},
	}
	metrics, series = make(map[string]map[string]metric), make(map[string]int)
	for _, name := range deployables {
		metrics[name] = make(map[string]metric)
	}
	var of []string
	for line := range strings.Lines(string(page)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			of = programs[strings.TrimSpace(heading)]
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|\n"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		name := strings.Trim(cells[0], "`")
		if n, err := strconv.Atoi(cells[len(cells)-1]); err == nil && slices.Contains(deployables, name) {
			series[name] = n
		}
		if len(cells) != 4 || !strings.HasPrefix(name, ours) {
			continue
		}
		if of == nil || cells[3] == "" {
			t.Errorf("%s is under no heading that names its program, or is not explained", name)
		}
		m := metric{cells[1], make(map[string][]string)}
		for label := range strings.SplitSeq(cells[2], "; ") {
			label, values, listed := strings.Cut(label, ": ")
			switch {
			case label == "":
			case listed:
				m.labels[strings.Trim(label, "`")] = strings.Split(values, ", ")
			default:
				m.labels[strings.Trim(label, "`")] = nil
			}
		}
		for _, program := range of {
			if _, twice := metrics[program][name]; twice {
				t.Errorf("%s has two rows for the %s", name, program)
			}
			metrics[program][name] = m
		}
	}
	return metrics, series
}

// docs/metrics.md describes each metric of each program, and no others. Their names follow Prometheus' rules.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(endpoint.Close)
	s.env = append(s.env, "USER_SYNC_URL="+endpoint.URL, "NOTIFY_URL="+endpoint.URL)
	admin, all := s.watched(t)
	all["worker"].waitForLog(t, "Worker ready", nil)
	all["api"].waitForLog(t, "API ready", nil)
	s.result(t, s.trigger(t, ""))
	pages, series := documented(t)
	for _, program := range deployables {
		_, text := fetch(t, admin[program]+"/metrics")
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, ours) {
				t.Errorf("%s: %s: %s", program, p.Metric, p.Text)
			}
		}
		found, n := exposed(t, text)
		if n != series[program] {
			t.Errorf("the %s has %d series, the page says %d", program, n, series[program])
		}
		for name, is := range found {
			said, there := pages[program][name]
			if !there {
				t.Errorf("the page does not have %s of the %s", name, program)
				continue
			}
			if is.kind != said.kind || !slices.Equal(slices.Sorted(maps.Keys(is.labels)), slices.Sorted(maps.Keys(said.labels))) {
				t.Errorf("%s of the %s is a %s with %v, the page says a %s with %v", name, program, is.kind, is.labels, said.kind, said.labels)
			}
			for label, values := range said.labels {
				slices.Sort(is.labels[label])
				slices.Sort(values)
				if values != nil && !slices.Equal(is.labels[label], values) {
					t.Errorf("%s: the %s is %v, the page says %v", name, label, is.labels[label], values)
				}
			}
		}
		for name := range pages[program] {
			if _, there := found[name]; !there && name != "codex_jobs_rate_wait_seconds" { // no shipped job type has a rate limit
				t.Errorf("the %s has no %s", program, name)
			}
		}
	}
	// The API's own port has the same metrics, except those about its requests.
	_, text := fetch(t, s.api+"/metrics")
	if found, _ := exposed(t, text); !slices.Equal(slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(pages["api"]))) {
		t.Errorf("the API's own port has %v", slices.Sorted(maps.Keys(found)))
	}
}
