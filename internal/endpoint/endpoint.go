// Package endpoint gives the work of a sync to an HTTP endpoint, so that a team can write it in any language. An Endpoint has an
// Update for a job.Sync. It is made of what package job exports, as a team could make it.
//
// The requests and the answers are described in openapi.json of package api, and for people in docs/endpoint.md.
package endpoint

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
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.opentelemetry.io/otel/propagation"

	"github.com/codex-api/codex-jobs/pkg/job"
)

const (
	// MaxBody is the size, in bytes, that neither a request's body nor an answer's may exceed.
	MaxBody = 16 << 20
	// connectTimeout bounds the making of a connection, and once more its TLS handshake.
	connectTimeout = 5 * time.Second
	// idleTimeout is how long an unused connection stays open. Node.js closes one after 5 s. A request that meets the close would fail.
	idleTimeout = 3 * time.Second
	// maxIdle is how many connections stay open, no fewer than there can be requests at once from several ranges.
	maxIdle = 1000
	// maxReason is how much of an answer is a reason, in bytes.
	maxReason = 1 << 10
	// tries is how many times a batch is sent in all to an endpoint that answers 500, before it is halved.
	tries = 3
)

// Options say where an endpoint is, and how to ask it.
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
	// Fields are the fields of a record to send besides its _id, or their paths. "*" alone means all.
	Fields []string
	// Version is the release, for the User-Agent.
	Version string
}

// LogValue shows where the endpoint is, without secrets.
func (o Options) LogValue() slog.Value {
	return slog.StringValue(shown(o.URL))
}

// shown returns a URL without what can be a secret in it. An invalid one is "".
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Endpoint asks an HTTP endpoint. It is safe for concurrent use.
type Endpoint struct {
	Options
	signers   []*standardwebhooks.Webhook
	transport *http.Transport
	client    *http.Client
	metrics   *Metrics
}

// New returns the endpoint. Metrics can be nil. Its error says what is wrong with the options.
func New(o Options, metrics *Metrics) (*Endpoint, error) {
	e := &Endpoint{Options: o, metrics: metrics}
	for _, secret := range o.Secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, errors.New("the secret of an endpoint is not in base64") // the library's error shows some of it
		}
		e.signers = append(e.signers, signer)
	}
	e.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout: connectTimeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Authorities},
		ForceAttemptHTTP2: true, IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: maxIdle,
	}
	if o.Proxy != nil {
		e.transport.Proxy = func(r *http.Request) (*url.URL, error) { return o.Proxy(r.URL) }
	}
	e.client = &http.Client{Transport: e.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return e, nil
}

// Close closes the connections, which must be unused by then.
func (e *Endpoint) Close() { e.transport.CloseIdleConnections() }

// Update is the Update of a job.Sync: it sends one request for the batch.
func (e *Endpoint) Update(ctx context.Context, batch *job.Batch[bson.Raw]) ([]job.Outcome, error) {
	asked, err := newQuestion(batch, e.Fields)
	if err != nil {
		return nil, err
	}
	if len(asked.body) > MaxBody {
		return nil, job.Halve(fmt.Errorf("the request to the endpoint would be %d bytes large; it may have %d", len(asked.body), MaxBody), 1)
	}
	started := time.Now()
	answer, err := e.post(ctx, asked)
	var outcomes []job.Outcome
	if err == nil {
		outcomes, err = e.understand(answer, asked)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e.metrics.observe(err, time.Since(started))
	return outcomes, forEngine(err)
}

// answer is the answer to a request.
type answer struct {
	status     int
	body       []byte // at most MaxBody + 1 bytes
	retryAfter time.Duration
	location   string
}

// post sends the request, and returns the answer. It waits for both no longer than the Timeout.
func (e *Endpoint) post(ctx context.Context, asked *question) (*answer, error) {
	bounded, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(bounded, http.MethodPost, e.URL, bytes.NewReader(asked.body))
	if err != nil {
		return nil, fmt.Errorf("making the request to the endpoint: %w", withoutURL(err))
	}
	if err := e.setHeader(bounded, request.Header, asked); err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, e.noAnswer(bounded, err)
	}
	defer response.Body.Close()
	a := &answer{
		status: response.StatusCode, retryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		location: response.Header.Get("Location"),
	}
	limit := int64(maxReason)
	if a.status == http.StatusOK {
		limit = MaxBody + 1
	}
	if a.body, err = io.ReadAll(io.LimitReader(response.Body, limit)); err != nil && a.status == http.StatusOK {
		return nil, e.noAnswer(bounded, err)
	}
	return a, nil
}

// noAnswer returns the error of a request that got no answer, or half of one.
func (e *Endpoint) noAnswer(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &away{reason: fmt.Errorf("the endpoint did not answer within %s", e.Timeout)}
	}
	return &away{reason: fmt.Errorf("the endpoint cannot be reached: %w", withoutURL(err))}
}

// withoutURL removes the URL from an error, because that can have a secret.
func withoutURL(err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// setHeader sets the header of a request, and signs it.
func (e *Endpoint) setHeader(ctx context.Context, header http.Header, asked *question) error {
	header.Set("Content-Type", "application/json")
	header.Set("Accept", "application/json")
	header.Set("User-Agent", strings.TrimSuffix("codex-jobs/"+e.Version, "/"))
	now := time.Now()
	header.Set(standardwebhooks.HeaderWebhookID, asked.id)
	header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	var signatures []string
	for _, signer := range e.signers {
		signature, err := signer.Sign(asked.id, now, asked.body)
		if err != nil {
			return fmt.Errorf("signing the request to the endpoint: %w", err)
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
