package telemetry_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/telemetry/telemetrytest"
)

// Every metric has the namespace as a label. Without a namespace the series are those of releases that had none.
func TestNamespaceLabel(t *testing.T) {
	t.Parallel()
	for namespace, want := range map[string]string{
		"":     `codex_jobs_things_total{job_type="user-sync"}`,
		"shop": `codex_jobs_things_total{job_type="user-sync",namespace="shop"}`,
	} {
		registry := telemetry.NewRegistry("api", "v1", namespace)
		things := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "codex_jobs_things_total"}, []string{telemetry.LabelJobType})
		registry.MustRegister(things)
		things.WithLabelValues("user-sync").Inc()
		metrics := telemetrytest.Gather(t, registry)
		if metrics[want] != 1 {
			t.Errorf("there is no %s in %v", want, metrics)
		}
		for series := range metrics {
			if strings.Contains(series, `namespace="shop"`) != (namespace != "") {
				t.Errorf("in the namespace %q: %s", namespace, series)
			}
		}
	}
}
