// The metrics of the connection pool.

package mongodb

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// checkoutBuckets are in seconds. Getting a free connection takes microseconds. Making one, or waiting for one, takes longer.
var checkoutBuckets = []float64{0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5}

// PoolMetrics returns an option for Connect that registers the metrics of the connection pool.
func PoolMetrics(registerer prometheus.Registerer) func(*options.ClientOptions) {
	factory := promauto.With(registerer)
	gauge := func(name, help string) prometheus.Gauge {
		return factory.NewGauge(prometheus.GaugeOpts{Namespace: telemetry.Namespace, Subsystem: "mongodb", Name: name, Help: help})
	}
	open := gauge("connections_open", "Open connections to MongoDB, without those that only watch the servers.")
	inUse := gauge("connections_in_use", "Connections to MongoDB that an operation uses.")
	failures := factory.NewCounter(prometheus.CounterOpts{
		Namespace: telemetry.Namespace, Subsystem: "mongodb", Name: "checkout_failures_total",
		Help: "Operations that got no connection to MongoDB.",
	})
	duration := factory.NewHistogram(prometheus.HistogramOpts{
		Namespace: telemetry.Namespace, Subsystem: "mongodb", Name: "checkout_duration_seconds", Buckets: checkoutBuckets,
		Help: "Time that operations waited for a connection to MongoDB.",
	})
	monitor := &event.PoolMonitor{Event: func(e *event.PoolEvent) {
		switch e.Type {
		case event.ConnectionCreated:
			open.Inc()
		case event.ConnectionClosed:
			open.Dec()
		case event.ConnectionCheckedOut:
			inUse.Inc()
			duration.Observe(e.Duration.Seconds())
		case event.ConnectionCheckedIn:
			inUse.Dec()
		case event.ConnectionCheckOutFailed:
			failures.Inc()
		}
	}}
	return func(o *options.ClientOptions) { o.SetPoolMonitor(monitor) }
}
