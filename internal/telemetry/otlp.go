package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// OpenTelemetry's own client of OTLP over HTTP brings all of gRPC into a program, 8 MB, although it does not use it. What
// is left to do without it is one POST: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request.

const (
	// uploadTimeout bounds one try at sending spans.
	uploadTimeout = 10 * time.Second
	// uploadTries is how often spans are sent that the other side could not take for the moment.
	uploadTries = 4
	// uploadPause is the wait before the second try; it doubles with each one more.
	uploadPause = 500 * time.Millisecond
	// maxRetryAfter is the longest wait that the other side may ask for.
	maxRetryAfter = 10 * time.Second
)

// otlpClient implements otlptrace.Client.
type otlpClient struct {
	url     string
	headers map[string]string
	http    *http.Client
}

// newOTLPClient returns a client for the base URL, to which the path of traces is added.
func newOTLPClient(endpoint string, headers map[string]string) *otlpClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	return &otlpClient{
		url: strings.TrimSuffix(endpoint, "/") + "/v1/traces", headers: headers,
		http: &http.Client{
			Timeout: uploadTimeout, Transport: transport,
			// A redirect would make the POST a GET without spans, or take the headers, and a key in them, to another host.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Start implements otlptrace.Client.
func (c *otlpClient) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *otlpClient) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. What the other side cannot take for the moment it sends again a few times.
func (c *otlpClient) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire this is an ExportTraceServiceRequest: both are a list of ResourceSpans, as field 1.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encoding spans: %w", err)
	}
	for wait, try := uploadPause, 1; ; wait, try = 2*wait, try+1 {
		asked, again, err := c.upload(ctx, body)
		if err == nil || !again || try == uploadTries {
			return err
		}
		select {
		case <-time.After(max(wait, min(asked, maxRetryAfter))):
		case <-ctx.Done():
			return err
		}
	}
}

// upload sends spans once. Where sending them again may help it says so, and after what time the other side wants that.
func (c *otlpClient) upload(ctx context.Context, body []byte) (after time.Duration, again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, false, fmt.Errorf("sending spans: %w", withoutURL(err))
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	for name, value := range c.headers {
		request.Header.Set(name, value)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, true, fmt.Errorf("sending spans to %s: %w", request.URL.Host, withoutURL(err))
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode/100 == 2 {
		return 0, false, nil
	}
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After")) // one that is a date is left aside
	return time.Duration(seconds) * time.Second, again, fmt.Errorf("sending spans to %s: it answered %s", request.URL.Host, response.Status)
}

// withoutURL takes away the URL, in which a password may be.
func withoutURL(err error) error {
	if wrapped, ok := err.(*url.Error); ok { //nolint:errorlint // it is what net/http returns, as it is
		return wrapped.Err
	}
	return err
}
