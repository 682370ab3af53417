// Traces: a span for each attempt at a run or a range, which continues the trace of the trigger or the tick, and in it a span
// for each batch.

package worker

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

// startSpan begins the span of the attempt.
func (a *attempt) startSpan(ctx context.Context) (context.Context, trace.Span) {
	name := "run " + a.c.def.Name
	about := []attribute.KeyValue{
		telemetry.AttributeJobType.String(a.c.def.Name), telemetry.AttributeJobID.String(a.id.String()),
	}
	if a.c.unit == unitRange {
		name = "range of " + a.c.def.Name
		about = append(about, telemetry.AttributeRange.Int(a.index))
	}
	ctx = telemetry.ContinueTrace(ctx, a.task.Headers())
	return a.c.w.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(about...))
}

// endSpan ends the span of an attempt with the attempt's error. A release is no error.
func endSpan(span trace.Span, err error) {
	if errors.Is(err, errReleased) {
		span.AddEvent("given back")
		err = nil
	}
	telemetry.EndSpan(span, err)
}

// observer returns the Attempt.Observe of a job type.
func (w *Worker) observer(def tasks.Definition) func(context.Context, int) (context.Context, func(updated, failed int64, err error)) {
	metrics := w.metrics[def.Name]
	return func(ctx context.Context, records int) (context.Context, func(updated, failed int64, err error)) {
		started := time.Now()
		ctx, span := w.tracer.Start(ctx, "batch", trace.WithAttributes(attribute.Int("codex.batch.records", records)))
		return ctx, func(updated, failed int64, err error) {
			if err == nil { // otherwise the numbers are not known, and the batch is done again
				metrics.batch.Observe(time.Since(started).Seconds())
				metrics.processed.Add(float64(records))
				metrics.updated.Add(float64(updated))
				metrics.failed.Add(float64(failed))
				span.SetAttributes(attribute.Int64("codex.batch.updated", updated), attribute.Int64("codex.batch.failed", failed))
			}
			telemetry.EndSpan(span, err)
		}
	}
}
