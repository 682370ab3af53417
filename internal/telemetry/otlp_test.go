package telemetry

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// send sends a span and returns what went wrong.
func send(t *testing.T, o TracingOptions) error {
	t.Helper()
	exporter, client, err := newExporter(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return exporter.ExportSpans(t.Context(), tracetest.SpanStubs{{Name: "one"}}.Snapshots())
}

func TestExport(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer        int
		user          string // in the URL
		headers       map[string]string
		authorization string
		failure       string
	}{
		"taken":                 {answer: 200},
		"with a key":            {answer: 200, headers: map[string]string{"authorization": "Bearer x"}, authorization: "Bearer x"},
		"with a user":           {answer: 200, user: "u:a%20password@", authorization: "Basic dTphIHBhc3N3b3Jk"},
		"with a user and a key": {answer: 200, user: "u:p@", headers: map[string]string{"authorization": "Bearer x"}, authorization: "Bearer x"},
		"refused":               {answer: 401, failure: "401 Unauthorized"},
		"moved":                 {answer: 301, failure: "301 Moved Permanently"},
		"moved as it is":        {answer: 307, failure: "307 Temporary Redirect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				body, _ := io.ReadAll(r.Body)
				var got coltracepb.ExportTraceServiceRequest
				if err := proto.Unmarshal(body, &got); err != nil || len(got.ResourceSpans) != 1 || got.ResourceSpans[0].ScopeSpans[0].Spans[0].Name != "one" {
					t.Errorf("got %v %v", &got, err)
				}
				if r.Method != http.MethodPost || r.URL.Path != "/base/v1/traces" || r.Header.Get("Authorization") != test.authorization {
					t.Errorf("%s %s %v", r.Method, r.URL.Path, r.Header)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(test.answer)
			}))
			t.Cleanup(server.Close)
			err := send(t, TracingOptions{
				Endpoint: strings.Replace(server.URL, "://", "://"+test.user, 1) + "/base/", Headers: test.headers, Timeout: 10 * time.Second,
			})
			if (err == nil) != (test.failure == "") || err != nil && !strings.Contains(err.Error(), test.failure) {
				t.Errorf("got %v, want %q", err, test.failure)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests, want 1", requests.Load())
			}
		})
	}
}

func TestExportTrustsTheGivenAuthorities(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of the handshake that fails
	server.StartTLS()
	t.Cleanup(server.Close)
	o := TracingOptions{Endpoint: server.URL, Timeout: 10 * time.Second}
	if err := send(t, o); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without them: got %v", err)
	}
	o.CA = x509.NewCertPool()
	o.CA.AddCert(server.Certificate())
	if err := send(t, o); err != nil {
		t.Errorf("with them: %v", err)
	}
}

func TestExportEnds(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	// The exporter would send again after this, were it not for its context.
	exporter, client, err := newExporter(t.Context(), TracingOptions{Endpoint: server.URL, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begun := time.Now()
	err = exporter.ExportSpans(ctx, tracetest.SpanStubs{{Name: "one"}}.Snapshots())
	if err == nil || !strings.Contains(err.Error(), "Client.Timeout") || time.Since(begun) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(begun))
	}
}

func TestExportDoesNotTellThePassword(t *testing.T) {
	t.Parallel()
	err := send(t, TracingOptions{Endpoint: "http://user:a-password@127.0.0.1:1", Timeout: 10 * time.Second})
	if err == nil || strings.Contains(err.Error(), "a-password") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	_, _, err = newExporter(t.Context(), TracingOptions{Endpoint: "http://user:a-password@ h"})
	if err == nil || strings.Contains(err.Error(), "a-password") {
		t.Errorf("got %v", err)
	}
}

// slowExporter sends nothing until it is released.
type slowExporter struct{ sending, release chan struct{} }

func (e slowExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	e.sending <- struct{}{}
	<-e.release
	return nil
}

func (e slowExporter) Shutdown(context.Context) error { return nil }

// How many spans found no room is only told by OpenTelemetry's own log: a new version could change that. Not parallel: that log is
// the process's.
func TestDroppedSpansAreLogged(t *testing.T) {
	var out bytes.Buffer
	otel.SetLogger(logr.FromSlogHandler(newTraceLog(slog.New(slog.NewTextHandler(&out, nil)))))
	t.Cleanup(func() { otel.SetLogger(logr.Discard()) })
	e := slowExporter{make(chan struct{}, 10), make(chan struct{})}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(e, sdktrace.WithMaxQueueSize(3), sdktrace.WithMaxExportBatchSize(1)))
	end := func() { _, span := provider.Tracer("").Start(t.Context(), "one"); span.End() }
	end()
	<-e.sending
	const room, more = 3, 4
	for range room + more {
		end()
	}
	close(e.release)
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "spans=4") {
		t.Errorf("the log has\n%s\nwant one line that tells of %d spans", got, more)
	}
}

func TestTraceLogKeepsSecrets(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(newTraceLog(slog.New(slog.NewTextHandler(&out, nil))))
	log.Error("parse headers", "input", "a-key")
	log.Info("of no interest")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "parse headers") || strings.Contains(got, "a-key") {
		t.Errorf("the log has %s", got)
	}
}
