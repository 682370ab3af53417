package telemetry

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TracerName is the instrumentation scope of the product's own spans.
const TracerName = "github.com/codex-api/codex-jobs"

// Attributes of spans. The log calls them job, jobId and range.
const (
	AttributeJobType = attribute.Key("codex.job.type")
	AttributeJobID   = attribute.Key("codex.job.id")
	AttributeRange   = attribute.Key("codex.range.index")
)

// TracingOptions say where a process sends its traces.
type TracingOptions struct {
	// Service and Version are the process's.
	Service, Version string
	// Endpoint is the base URL of a collector that takes OTLP over HTTP; "" for no traces.
	Endpoint string
	// Headers are sent with every request to it.
	Headers map[string]string
	// CA are the certificate authorities to trust with an https endpoint; nil for the system's.
	CA *x509.CertPool
	// Timeout bounds one request.
	Timeout time.Duration
	// Ratio is the share of the traces that begin here that is kept, 0 to 1. The beginning of any other trace has decided
	// about it.
	Ratio float64
}

// NewTracerProvider returns a provider of tracers, nil without an endpoint, and a function that sends the last spans and
// ends it. Nothing waits for spans: those that cannot be sent are dropped, and so are those beyond the room of the queue. The log
// says both.
func NewTracerProvider(ctx context.Context, o TracingOptions, log *slog.Logger) (trace.TracerProvider, func(context.Context) error, error) {
	if o.Endpoint == "" {
		return nil, func(context.Context) error { return nil }, nil
	}
	host, _ := os.Hostname()
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "codex-jobs-"+o.Service),
		attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", host+":"+strconv.Itoa(os.Getpid())),
	), resource.WithFromEnv())
	if err != nil { // of OTEL_RESOURCE_ATTRIBUTES, which only adds to it
		log.Warn("Traces do not say all that they should of this process", "error", err)
	}
	otel.SetErrorHandler(newTraceErrors(log))
	otel.SetLogger(logr.FromSlogHandler(newTraceLog(log)))
	exporter, client, err := newExporter(ctx, o)
	if err != nil {
		return nil, nil, fmt.Errorf("preparing to send traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Ratio))))
	return provider, func(ctx context.Context) error {
		defer client.CloseIdleConnections()
		return provider.Shutdown(ctx)
	}, nil
}

// Tracer returns the tracer of the product's own spans. With a nil provider its spans go nowhere.
func Tracer(provider trace.TracerProvider) trace.Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	return provider.Tracer(TracerName)
}

// EndSpan ends a span with the error, or without one if that is nil.
func EndSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Propagator carries a trace from one process to another: https://www.w3.org/TR/trace-context/.
var Propagator = propagation.TraceContext{}

// TraceHeaders returns the headers that carry the context's trace to the worker of a task; nil without a trace. It leaves
// out the tracestate of a client, up to 16 KB, because each range of a run would carry it.
func TraceHeaders(ctx context.Context) map[string]string {
	headers := make(propagation.MapCarrier)
	Propagator.Inject(ctx, headers)
	delete(headers, "tracestate")
	if len(headers) == 0 {
		return nil
	}
	return headers
}

// ContinueTrace returns a context with the trace in the headers of a task, if they have one.
func ContinueTrace(ctx context.Context, headers map[string]string) context.Context {
	return Propagator.Extract(ctx, propagation.MapCarrier(headers))
}

// LogTrace returns the logger with the ID of the context's trace, if it has one.
func LogTrace(ctx context.Context, log *slog.Logger) *slog.Logger {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return log.With("traceId", span.TraceID().String())
	}
	return log
}
