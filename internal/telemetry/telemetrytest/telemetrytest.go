// Package telemetrytest reads metrics as Prometheus does. It is for tests only.
package telemetrytest

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// Metrics are the values of all series that a scrape has shown. A series goes by its name and its labels as they are written:
// `codex_jobs_ticks_total{job_type="user-sync",outcome="enqueued"}`.
type Metrics map[string]float64

// Parse reads what /metrics serves.
func Parse(t testing.TB, text string) Metrics {
	t.Helper()
	metrics := make(Metrics)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if i < 0 || err != nil {
			t.Fatalf("no line of metrics: %q", line)
		}
		metrics[line[:i]] = value
	}
	return metrics
}

// Gather returns what the gatherer, such as a registry, tells at present.
func Gather(t testing.TB, gatherer prometheus.Gatherer) Metrics {
	t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}).ServeHTTP(recorder, request)
	if recorder.Code != http.StatusOK {
		t.Fatalf("gathering metrics: %s", recorder.Body)
	}
	return Parse(t, recorder.Body.String())
}

// Counted returns what was counted of a job type, over all gatherers together: its counters, and how often its histograms
// have observed something, without those that are 0. They go by their names without namespace and job type:
// `ticks_total{outcome="enqueued"}`.
func Counted[G prometheus.Gatherer](t testing.TB, job string, gatherers ...G) map[string]float64 {
	t.Helper()
	label := telemetry.LabelJobType + `="` + job + `"`
	short := strings.NewReplacer(telemetry.Namespace+"_", "", "{"+label+"}", "", label+",", "")
	counted := make(map[string]float64)
	for _, gatherer := range gatherers {
		for series, value := range Gather(t, gatherer) {
			name, labels, _ := strings.Cut(series, "{")
			if value == 0 || !strings.Contains(labels, label) || strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") {
				continue
			}
			counted[short.Replace(series)] += value
		}
	}
	return counted
}
