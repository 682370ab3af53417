// The scheduler's metrics.

package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// How ticks are handled, as metrics call it.
const (
	outcomeEnqueued  = "enqueued"
	outcomeCoalesced = "coalesced" // a waiting run serves the tick
	outcomeCaughtUp  = "caught_up" // either of the two, but overdue
)

// metrics are the metrics of a scheduler. All schedulers together count each tick once.
type metrics struct {
	ticks      *prometheus.CounterVec
	distrusted *prometheus.CounterVec
}

// newMetrics registers the metrics, unless the registerer is nil. All counters exist from the start, at 0.
func newMetrics(registerer prometheus.Registerer, registry *tasks.Registry) *metrics {
	m := &metrics{
		ticks: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Namespace: telemetry.Namespace, Name: "ticks_total", Help: "Ticks that this scheduler handled.",
		}, []string{telemetry.LabelJobType, telemetry.LabelOutcome}),
		distrusted: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Namespace: telemetry.Namespace, Name: "ticks_distrusted_total",
			Help: "Last ticks that this scheduler replaced, because a broken clock had left them.",
		}, []string{telemetry.LabelJobType}),
	}
	for _, name := range registry.Names() {
		m.distrusted.WithLabelValues(name)
		for _, outcome := range []string{outcomeEnqueued, outcomeCoalesced, outcomeCaughtUp} {
			m.ticks.WithLabelValues(name, outcome)
		}
	}
	return m
}

// tick counts a tick, unless another scheduler handled it.
func (m *metrics) tick(def tasks.Definition, tick jobs.Tick, overdue bool) {
	var outcome string
	switch {
	case tick.ServedBy == "" && !tick.Enqueued:
		return
	case overdue:
		outcome = outcomeCaughtUp
	case tick.Enqueued:
		outcome = outcomeEnqueued
	default:
		outcome = outcomeCoalesced
	}
	m.ticks.WithLabelValues(def.Name, outcome).Inc()
}
