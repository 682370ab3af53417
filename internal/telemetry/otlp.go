// How spans are sent, and what the log says of those that are not.

package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
)

// maxAnswer bounds what is read of an answer, in bytes. The exporter puts the text of a failure into its error.
const maxAnswer = 64 << 10

// newExporter returns OpenTelemetry's exporter, and the client that it sends with.
func newExporter(ctx context.Context, o TracingOptions) (*otlptrace.Exporter, *http.Client, error) {
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, nil, errors.New("the endpoint is not a URL") // the cause quotes it, and a password may be in it
	}
	headers := make(map[string]string)
	if user := endpoint.User; user != nil { // the exporter keeps no user in its URL
		password, _ := user.Password()
		headers["Authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	}
	for name, value := range o.Headers {
		headers[http.CanonicalHeaderKey(name)] = value
	}
	client := newExporterClient(o)
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(strings.TrimRight(o.Endpoint, "/")+"/v1/traces"), otlptracehttp.WithHeaders(headers),
		otlptracehttp.WithHTTPClient(client), otlptracehttp.WithMaxResponseSize(maxAnswer))
	return exporter, client, err
}

// newExporterClient returns a client that follows no redirect, as the exporter's own would: that makes the POST a GET without spans, or
// takes the headers, and a key in them, to another host.
func newExporterClient(o TracingOptions) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: o.CA}
	return &http.Client{
		Timeout: o.Timeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// traceErrors logs why spans were dropped, at most once a minute.
type traceErrors struct {
	log *slog.Logger

	mu     sync.Mutex
	logged time.Time
}

func newTraceErrors(log *slog.Logger) *traceErrors { return &traceErrors{log: log} }

// Handle implements otel.ErrorHandler.
func (e *traceErrors) Handle(err error) {
	if errors.Is(err, context.Canceled) {
		return // the process ends
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.logged) < quietTime {
		e.log.Debug("Could not send traces", "error", err)
		return
	}
	e.logged = time.Now()
	e.log.Warn("Could not send traces, they are dropped", "error", err)
}

// traceLog is the slog.Handler of what OpenTelemetry logs about itself. Before each batch that it sends, it logs there how many spans
// found no room in its queue so far; it says so nowhere else.
type traceLog struct {
	log *slog.Logger

	mu      sync.Mutex
	dropped uint64 // that the log has
	logged  time.Time
}

func newTraceLog(log *slog.Logger) *traceLog { return &traceLog{log: log} }

// Enabled implements slog.Handler.
func (l *traceLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *traceLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		l.log.Warn("OpenTelemetry: " + r.Message) // without the attributes, which may quote a header with a key in it
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "total_dropped" && a.Value.Kind() == slog.KindUint64 {
			l.noteDropped(a.Value.Uint64())
		}
		return true
	})
	return nil
}

// noteDropped logs how many spans were dropped since it last did so, at most once a minute.
func (l *traceLog) noteDropped(total uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if total == l.dropped || time.Since(l.logged) < quietTime {
		return
	}
	l.log.Warn("Traces come faster than they can be sent, some are dropped", "spans", total-l.dropped)
	l.dropped, l.logged = total, time.Now()
}

// WithAttrs implements slog.Handler.
func (l *traceLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *traceLog) WithGroup(string) slog.Handler { return l }
