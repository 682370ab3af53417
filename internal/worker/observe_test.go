package worker

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// BenchmarkObserveBatch measures what metrics, and traces that are not recorded, add to a batch. The batch itself takes more
// than a thousand times as long.
func BenchmarkObserveBatch(b *testing.B) {
	w := &Worker{metrics: newMetrics(prometheus.NewRegistry(), codex.Registry()), tracer: telemetry.Tracer(nil)}
	observe := w.observer(codex.UserSync)
	b.ReportAllocs()
	for b.Loop() {
		_, end := observe(b.Context(), 100)
		end(99, 1, nil)
	}
}
