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

// Metrics are the values of all series of a scrape, by name and labels as Prometheus writes them:
// `codex_jobs_ticks_total{job_type="user-sync",outcome="enqueued"}`.
type Metrics map[string]float64

// Parse reads an answer of /metrics.
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

// Gather returns the present metrics of a gatherer, such as a registry.
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

// Counted returns the sums of a job type's counters over all gatherers, and how often its histograms observed something. It
// leaves out those that are 0. The names have neither the namespace nor the job type: `ticks_total{outcome="enqueued"}`.
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
