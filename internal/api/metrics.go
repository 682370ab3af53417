package api

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const metricsPath = "/metrics"

// What metrics call the route of a request that has none: a path that a client made up must not become a label.
const (
	routeUnknown = "unknown" // nothing is at the path
	routeRefused = "refused" // the gate refused it
)

// otherMethod stands for the methods that no route has: a client can make up any number of them.
const otherMethod = "other"

var knownMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// metrics are the API's.
type metrics struct {
	requests *prometheus.HistogramVec
	triggers *prometheus.CounterVec
}

// newMetrics registers the metrics. The counters are there from the start, at 0.
func newMetrics(registerer prometheus.Registerer, registry *tasks.Registry) *metrics {
	factory := promauto.With(registerer)
	m := &metrics{
		requests: factory.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: telemetry.Namespace, Name: "http_request_duration_seconds", Buckets: prometheus.DefBuckets,
			Help: "Time that answers to requests took.",
		}, []string{"method", "route", "code"}),
		triggers: factory.NewCounterVec(prometheus.CounterOpts{
			Namespace: telemetry.Namespace, Name: "triggers_total", Help: "Triggers that were accepted.",
		}, []string{telemetry.LabelJobType, telemetry.LabelOutcome}),
	}
	for _, name := range registry.Names() {
		m.trigger(name, true).Add(0)
		m.trigger(name, false).Add(0)
	}
	return m
}

// trigger returns the counter of the triggers of a job type that a waiting run served, or for which a run was enqueued.
func (m *metrics) trigger(job string, coalesced bool) prometheus.Counter {
	outcome := "enqueued"
	if coalesced {
		outcome = "coalesced"
	}
	return m.triggers.WithLabelValues(job, outcome)
}

func (m *metrics) request(method, route string, status int, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = otherMethod
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
}

// measure is the middleware that measures how long answers take.
func (s *Server) measure(c *gin.Context) {
	started := time.Now()
	c.Next()
	route := c.FullPath()
	if route == "" {
		route = routeUnknown
	}
	s.metrics.request(c.Request.Method, route, c.Writer.Status(), time.Since(started))
}
