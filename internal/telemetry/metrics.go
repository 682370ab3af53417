package telemetry

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The names of metrics follow https://prometheus.io/docs/practices/naming/: base units, seconds and bytes, and _total for
// counters.

const (
	// Namespace begins the names of the product's own metrics.
	Namespace = "codex_jobs"
	// LabelNamespace is the label of every metric with the deployment's namespace.
	LabelNamespace = "namespace"
	// LabelJobType is the label with a job type's name. Prometheus has another meaning for the label job.
	LabelJobType = "job_type"
	// LabelOutcome is the label that says how something ended.
	LabelOutcome = "outcome"
)

const (
	// scrapeTimeout is when a scrape gets an error as its answer. Prometheus itself gives up after 10 s.
	scrapeTimeout = 8 * time.Second
	// maxScrapes is how many scrapes are answered at the same time. More are refused.
	maxScrapes = 8
)

// Registry has the metrics of one process.
type Registry struct {
	prometheus.Registerer
	prometheus.Gatherer
}

// NewRegistry returns the metrics of one process. It has the build information, and the metrics of Go and of the process. All
// have the label namespace, unless that is "": to Prometheus an empty label is one that is not there.
func NewRegistry(service, version, namespace string) *Registry {
	all := prometheus.NewRegistry()
	registry := &Registry{Registerer: all, Gatherer: all}
	if namespace != "" {
		registry.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{LabelNamespace: namespace}, all)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "build_info", Help: "What the process was built from; always 1.",
		ConstLabels: prometheus.Labels{"service": service, "version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// MetricsHandler serves metrics to Prometheus. It logs the metrics that cannot be gathered, and leaves them out.
func MetricsHandler(gatherer prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	})
}
