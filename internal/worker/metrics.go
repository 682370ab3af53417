// The worker's metrics.

package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// How runs and ranges end, as metrics call it.
const (
	outcomeCompleted = "completed"
	outcomeFailed    = "failed"
	outcomeCancelled = "cancelled"

	labelUnit = "unit"
)

// The bounds of histograms, in seconds. A run takes from milliseconds to its maximum duration of hours. It starts after
// milliseconds, or when the run before it has ended. A batch takes milliseconds, unless its work waits for another system.
var (
	runBuckets   = []float64{0.1, 0.5, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600}
	delayBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1200, 3600}
	rateBuckets  = []float64{0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600}
	batchBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
)

// jobMetrics are the metrics of one job type. All counters exist from the start, at 0: a rate misses the first event of a
// counter that appears with it.
type jobMetrics struct {
	runs        map[string]prometheus.Counter // by outcome
	ranges      map[string]prometheus.Counter // by outcome
	retries     map[string]prometheus.Counter // by unit
	rescues     map[string]prometheus.Counter // by unit
	runDuration prometheus.Observer
	startDelay  prometheus.Observer
	batch       prometheus.Observer
	rateWait    prometheus.Observer // nil without a rate limit
	processed   prometheus.Counter
	updated     prometheus.Counter
	failed      prometheus.Counter
}

// newMetrics registers the worker's metrics, unless the registerer is nil. It returns them by job type.
func newMetrics(registerer prometheus.Registerer, registry *tasks.Registry) map[string]*jobMetrics {
	factory := promauto.With(registerer)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Namespace: telemetry.Namespace, Name: name, Help: help}
		return factory.NewCounterVec(opts, append([]string{telemetry.LabelJobType}, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		opts := prometheus.HistogramOpts{Namespace: telemetry.Namespace, Name: name, Help: help, Buckets: buckets}
		return factory.NewHistogramVec(opts, []string{telemetry.LabelJobType})
	}
	runs := counter("runs_total", "Runs that have ended here.", telemetry.LabelOutcome)
	ranges := counter("ranges_total", "Ranges of large runs that have ended here.", telemetry.LabelOutcome)
	retries := counter("retries_total", "Attempts that have failed and are followed by another.", labelUnit)
	rescues := counter("recoveries_total", "Runs and ranges rescued from a worker that died or lost Redis.", labelUnit)
	runDuration := histogram("run_duration_seconds", "Time from a run's first start to its end.", runBuckets)
	startDelay := histogram("run_start_delay_seconds", "Time from a run's tick or trigger to its first start.", delayBuckets)
	batch := histogram("batch_duration_seconds", "Time that the work on a batch and its writing took.", batchBuckets)
	rateWait := histogram("rate_wait_seconds", "Time that a call waited for its turn, of job types with a rate limit.", rateBuckets)
	processed := counter("records_processed_total", "Records visited, those visited again after a crash included.")
	updated := counter("records_updated_total", "Records updated, those updated again after a crash included.")
	failed := counter("records_failed_total", "Records whose update failed.")

	all := make(map[string]*jobMetrics)
	for _, def := range registry.All() {
		name := def.Name
		each := func(of *prometheus.CounterVec, values ...string) map[string]prometheus.Counter {
			counters := make(map[string]prometheus.Counter)
			for _, value := range values {
				counters[value] = of.WithLabelValues(name, value)
			}
			return counters
		}
		all[name] = &jobMetrics{
			runs:        each(runs, outcomeCompleted, outcomeFailed, outcomeCancelled),
			ranges:      each(ranges, outcomeCompleted, outcomeFailed),
			retries:     each(retries, string(unitRun), string(unitRange)),
			rescues:     each(rescues, string(unitRun), string(unitRange)),
			runDuration: runDuration.WithLabelValues(name),
			startDelay:  startDelay.WithLabelValues(name),
			batch:       batch.WithLabelValues(name),
			processed:   processed.WithLabelValues(name),
			updated:     updated.WithLabelValues(name),
			failed:      failed.WithLabelValues(name),
		}
		if def.Rate.Calls > 0 {
			all[name].rateWait = rateWait.WithLabelValues(name)
		}
	}
	return all
}

// runEnded counts the end of a run. Started is when it began, and zero if it never did.
func (m *jobMetrics) runEnded(outcome string, started time.Time) {
	m.runs[outcome].Inc()
	if !started.IsZero() {
		m.runDuration.Observe(time.Since(started).Seconds())
	}
}
