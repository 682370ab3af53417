// The metrics of notifications.

package notify

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// How tries end, as the metric calls it.
const (
	outcomeDelivered = "delivered"
	// outcomeFailed is for a try that another one follows, or that was a test.
	outcomeFailed = "failed"
	// outcomeGivenUp is for the last try.
	outcomeGivenUp = "given_up"
)

// Metrics count the tries to deliver notifications. A nil one counts nothing.
type Metrics struct{ tries map[string]prometheus.Counter }

// NewMetrics registers the metrics. All counters begin at 0: a rate misses the first event of a counter that appears with it.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	tries := promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
		Namespace: telemetry.Namespace, Name: "notifications_total", Help: "Tries to deliver a notification.",
	}, []string{telemetry.LabelOutcome})
	m := &Metrics{tries: make(map[string]prometheus.Counter)}
	for _, outcome := range []string{outcomeDelivered, outcomeFailed, outcomeGivenUp} {
		m.tries[outcome] = tries.WithLabelValues(outcome)
	}
	return m
}

func (m *Metrics) count(outcome string) {
	if m != nil {
		m.tries[outcome].Inc()
	}
}
