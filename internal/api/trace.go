package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// untraced are the paths that machines ask for every few seconds.
var untraced = append([]string{metricsPath}, openPaths...)

// trace makes a span of each request that the gate lets through, in the request's own trace if it has one. From then on the
// request's logger has the trace's ID.
func (s *Server) trace(r *gin.Engine) {
	if s.Tracing == nil {
		return
	}
	r.Use(otelgin.Middleware("", otelgin.WithTracerProvider(s.Tracing), otelgin.WithPropagators(telemetry.Propagator),
		otelgin.WithFilter(func(r *http.Request) bool { return !slices.Contains(untraced, r.URL.Path) })))
	r.Use(func(c *gin.Context) {
		ctx := c.Request.Context()
		c.Request = c.Request.WithContext(context.WithValue(ctx, requestLog{}, telemetry.LogTrace(ctx, s.log(c))))
		c.Next()
	})
}

// traceJob adds a job to the request's span.
func traceJob(c *gin.Context, job, id string) {
	trace.SpanFromContext(c.Request.Context()).SetAttributes(
		telemetry.AttributeJobType.String(job), telemetry.AttributeJobID.String(id))
}
