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

// untraced are asked every few seconds, by machines.
var untraced = append([]string{metricsPath}, openPaths...)

// trace makes a span of each request that got past the gate, in the trace that it brings along if it does. The request's
// logger knows the trace from then on.
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

// traceJob tells the request's span which job it was about.
func traceJob(c *gin.Context, job, id string) {
	trace.SpanFromContext(c.Request.Context()).SetAttributes(
		telemetry.AttributeJobType.String(job), telemetry.AttributeJobID.String(id))
}
