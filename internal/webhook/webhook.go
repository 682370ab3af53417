// Package webhook posts JSON as Standard Webhooks says: signed, with an ID that tells a repetition. It is for what this product sends
// to a team's own programs: batches to the endpoint of a sync, and notifications. What an answer means is left to the caller.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.opentelemetry.io/otel/propagation"
)

const (
	// connectTimeout bounds the making of a connection, and once more its TLS handshake.
	connectTimeout = 5 * time.Second
	// idleTimeout is how long an unused connection stays open. Node.js closes one after 5 s. A request that meets the close would fail.
	idleTimeout = 3 * time.Second
	// maxIdle is how many connections stay open, no fewer than there can be requests at once from several ranges.
	maxIdle = 1000
	// writeBuffer is how much of a request is sent at once, in bytes: all of a usual batch, with which the other end wakes up only once.
	writeBuffer = 64 << 10
	// maxReason is how much of an answer is a reason, in bytes.
	maxReason = 1 << 10
)

// Options say where the requests go, and how.
type Options struct {
	// URL takes the POSTs. It can have a user and a password.
	URL string
	// Secrets sign the requests, each of them, as Standard Webhooks says: whsec_ and the key in base64. There are two while one is
	// being changed. Without any the requests are unsigned.
	Secrets []string
	// Timeout bounds one request, from its beginning to the end of the answer.
	Timeout time.Duration
	// Authorities are the certificate authorities to trust. nil means those of the system.
	Authorities *x509.CertPool
	// Proxy returns the proxy for a URL, or nil for none. It can be nil.
	Proxy func(*url.URL) (*url.URL, error)
	// Version is the release, for the User-Agent.
	Version string
}

// LogValue shows where the requests go, without secrets.
func (o Options) LogValue() slog.Value { return slog.StringValue(Shown(o.URL)) }

// Shown returns a URL without what can be a secret in it. An invalid one is "".
func Shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Client sends the requests. It is safe for concurrent use. It follows no redirect.
type Client struct {
	options   Options
	signers   []*standardwebhooks.Webhook
	transport *http.Transport
	client    *http.Client
}

// New returns a client. Its error says what is wrong with the options.
func New(o Options) (*Client, error) {
	c := &Client{options: o}
	for _, secret := range o.Secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, errors.New("the secret that signs requests is not in base64") // the library's error shows some of it
		}
		c.signers = append(c.signers, signer)
	}
	c.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout: connectTimeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Authorities},
		ForceAttemptHTTP2: true, IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: maxIdle, WriteBufferSize: writeBuffer,
	}
	if o.Proxy != nil {
		c.transport.Proxy = func(r *http.Request) (*url.URL, error) { return o.Proxy(r.URL) }
	}
	c.client = &http.Client{Transport: c.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Close closes the connections, which must be unused by then.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Answer is the answer to a request.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Body is what the caller asked for of the body of a 200, and one byte more of a longer one. Of other answers it is the beginning.
	Body []byte
	// RetryAfter is the time of Retry-After, 0 for none.
	RetryAfter time.Duration
	// Location is where a redirect leads. It can have secrets: see Shown.
	Location string
}

// String says what was answered. The text follows the name of who answered: "answered 503 Service Unavailable: busy".
func (a *Answer) String() string {
	text := fmt.Sprintf("answered %d %s", a.Status, http.StatusText(a.Status))
	if reason := Excerpt(a.Body); reason != "" {
		text += ": " + reason
	}
	if a.IsRedirect() {
		text += fmt.Sprintf("; it redirects to %q, and redirects are not followed", Excerpt([]byte(Shown(a.Location))))
	}
	return text
}

// IsRedirect reports whether the answer sends the client elsewhere.
func (a *Answer) IsRedirect() bool {
	switch a.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// Excerpt returns the beginning of an answer, as text in one line.
func Excerpt(body []byte) string {
	text := strings.ToValidUTF8(string(body[:min(len(body), maxReason)]), "\uFFFD")
	return strings.Join(strings.Fields(text), " ")
}

// NoAnswerError is the error of a request that got no answer, or half of one. The text follows the name of who did not answer:
// "did not answer within 30s".
type NoAnswerError struct{ reason error }

func (e *NoAnswerError) Error() string { return e.reason.Error() }

// Unwrap returns the reason.
func (e *NoAnswerError) Unwrap() error { return e.reason }

// Post sends the body as JSON, with the ID that tells a repetition, and returns the answer. It reads at most limit bytes of the body
// of a 200, and one more. It waits for all no longer than the Timeout. It returns a NoAnswerError if there is no answer.
func (c *Client) Post(ctx context.Context, id string, body []byte, limit int64) (*Answer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(bounded, http.MethodPost, c.options.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", withoutURL(err))
	}
	if err := c.setHeader(bounded, request.Header, id, body); err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, c.noAnswer(bounded, err)
	}
	defer response.Body.Close()
	a := &Answer{
		Status: response.StatusCode, RetryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		Location: response.Header.Get("Location"),
	}
	read := int64(maxReason)
	if a.Status == http.StatusOK {
		read = limit + 1
	}
	if a.Body, err = io.ReadAll(io.LimitReader(response.Body, read)); err != nil && a.Status == http.StatusOK {
		return nil, c.noAnswer(bounded, err)
	}
	return a, nil
}

func (c *Client) noAnswer(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &NoAnswerError{fmt.Errorf("did not answer within %s", c.options.Timeout)}
	}
	return &NoAnswerError{fmt.Errorf("cannot be reached: %w", withoutURL(err))}
}

// withoutURL removes the URL from an error, because that can have a secret.
func withoutURL(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// setHeader sets the header of a request, and signs it.
func (c *Client) setHeader(ctx context.Context, header http.Header, id string, body []byte) error {
	header.Set("Content-Type", "application/json")
	header.Set("Accept", "application/json")
	header.Set("User-Agent", strings.TrimSuffix("codex-jobs/"+c.options.Version, "/"))
	now := time.Now()
	header.Set(standardwebhooks.HeaderWebhookID, id)
	header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	var signatures []string
	for _, signer := range c.signers {
		signature, err := signer.Sign(id, now, body)
		if err != nil {
			return fmt.Errorf("signing the request: %w", err)
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) > 0 {
		header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	return nil
}

// retryAfter returns the time of a Retry-After, which is in seconds or a date. It returns 0 for none, and for one that is not
// understood.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
		return time.Duration(min(max(seconds, 0), 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
