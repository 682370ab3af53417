// A span for each command.

package mongodb

import (
	"context"
	"sync"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// TraceCommands returns an option for Connect that makes a span for each command within a trace. A span has the command's name
// and its collection, and nothing of the command's content. A nil provider makes none, at no cost.
func TraceCommands(provider trace.TracerProvider) func(*options.ClientOptions) {
	if provider == nil {
		return func(*options.ClientOptions) {}
	}
	t := &commandTracer{tracer: telemetry.Tracer(provider), spans: make(map[commandKey]trace.Span)}
	monitor := &event.CommandMonitor{
		Started:   t.started,
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) { t.ended(e.CommandFinishedEvent, nil) },
		Failed:    func(_ context.Context, e *event.CommandFailedEvent) { t.ended(e.CommandFinishedEvent, e.Failure) },
	}
	return func(o *options.ClientOptions) { o.SetMonitor(monitor) }
}

// commandKey identifies a command in flight.
type commandKey struct {
	connection string
	request    int64
}

type commandTracer struct {
	tracer trace.Tracer

	mu    sync.Mutex
	spans map[commandKey]trace.Span // of commands in flight
}

func (t *commandTracer) started(ctx context.Context, e *event.CommandStartedEvent) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	// The names come from https://opentelemetry.io/docs/specs/semconv/database/mongodb/.
	about := []attribute.KeyValue{
		attribute.String("db.system.name", "mongodb"),
		attribute.String("db.namespace", e.DatabaseName),
		attribute.String("db.operation.name", e.CommandName),
	}
	name := e.CommandName
	field := e.CommandName
	if name == "getMore" {
		field = "collection"
	}
	if collection, ok := e.Command.Lookup(field).StringValueOK(); ok {
		about = append(about, attribute.String("db.collection.name", collection))
		name += " " + collection
	}
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(about...))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans[commandKey{e.ConnectionID, e.RequestID}] = span
}

func (t *commandTracer) ended(e event.CommandFinishedEvent, failure error) {
	key := commandKey{e.ConnectionID, e.RequestID}
	t.mu.Lock()
	span := t.spans[key]
	delete(t.spans, key)
	t.mu.Unlock()
	if span != nil {
		telemetry.EndSpan(span, failure)
	}
}
