// The metrics of endpoints.

package endpoint

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// How requests end, as the metrics call it.
const (
	// outcomeOK is for an answer that was understood.
	outcomeOK = "ok"
	// outcomeAway is for an endpoint that is waited for.
	outcomeAway = "away"
	// outcomeError is for an answer that one of the records may have caused.
	outcomeError = "error"
	// outcomeRefused is for an answer that fails the attempt.
	outcomeRefused = "refused"
)

// requestBuckets are the bounds of the histogram, in seconds: an endpoint answers within milliseconds, or asks others first.
var requestBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// Metrics are the metrics of the endpoint of one job type. A nil one measures nothing.
type Metrics struct {
	requests map[string]prometheus.Counter // by outcome
	duration prometheus.Observer
}

// NewMetrics registers the metrics of the endpoints of the job types. It returns them by job type. All counters begin at 0: a rate
// misses the first event of a counter that appears with it.
func NewMetrics(registerer prometheus.Registerer, jobTypes []string) map[string]*Metrics {
	factory := promauto.With(registerer)
	requests := factory.NewCounterVec(prometheus.CounterOpts{
		Namespace: telemetry.Namespace, Name: "endpoint_requests_total", Help: "Requests to the endpoints of syncs.",
	}, []string{telemetry.LabelJobType, telemetry.LabelOutcome})
	duration := factory.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: telemetry.Namespace, Name: "endpoint_request_duration_seconds", Buckets: requestBuckets,
		Help: "Time from a request to an endpoint to the end of the answer, or until there was none.",
	}, []string{telemetry.LabelJobType})
	all := make(map[string]*Metrics)
	for _, name := range jobTypes {
		m := &Metrics{requests: make(map[string]prometheus.Counter), duration: duration.WithLabelValues(name)}
		for _, outcome := range []string{outcomeOK, outcomeAway, outcomeError, outcomeRefused} {
			m.requests[outcome] = requests.WithLabelValues(name, outcome)
		}
		all[name] = m
	}
	return all
}

// observe counts a request by its error.
func (m *Metrics) observe(err error, took time.Duration) {
	if m == nil {
		return
	}
	outcome := outcomeRefused
	var gone *away
	var caused *culprit
	switch {
	case err == nil:
		outcome = outcomeOK
	case errors.As(err, &gone):
		outcome = outcomeAway
	case errors.As(err, &caused):
		outcome = outcomeError
	}
	m.requests[outcome].Inc()
	m.duration.Observe(took.Seconds())
}
