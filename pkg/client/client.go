package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// How requests are sent and answers read.

const (
	// DefaultTimeout is how long one request may take, up to the end of its answer.
	DefaultTimeout = 10 * time.Second
	// longExtra is how much longer Cleanup, RetryFailed, CancelWaiting and TestNotification may take: the API gives them up to
	// 25 s.
	longExtra = 20 * time.Second
	// maxAnswer is the longest answer that is read, in bytes: far more than any that the API gives.
	maxAnswer = 16 << 20
)

// Client talks to one API. It is safe for concurrent use. Make one with New.
type Client struct {
	// base has no slash at its end.
	base    *url.URL
	key     string
	http    *http.Client
	timeout time.Duration
}

// Option changes what New makes.
type Option func(*Client)

// WithAPIKey sends the key with each request, as a bearer token. An empty one is not sent.
func WithAPIKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient sends the requests with h, which then decides about proxies, TLS and redirects. The Client's own time
// limit holds all the same.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithTimeout sets how long one request may take, in the place of DefaultTimeout. Cleanup, RetryFailed and CancelWaiting may take
// 20 s more.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// New returns a Client of the API at baseURL, such as http://127.0.0.1:4000, which may have a path. It asks the API
// nothing yet. It returns an error when the URL is not one of HTTP, or when the key cannot be sent; the error does not
// have the key in it.
//
// Unless an option says otherwise the Client follows no redirects: they would turn a POST into a GET.
func New(baseURL string, options ...Option) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("the API's URL was %q; it must be one such as http://127.0.0.1:4000", withoutPassword(base, baseURL))
	}
	c := &Client{base: base, timeout: DefaultTimeout}
	for _, option := range options {
		option(c)
	}
	if strings.ContainsFunc(c.key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the API key has white space or other characters in it that cannot be sent")
	}
	if c.http == nil {
		c.http = &http.Client{CheckRedirect: noRedirect}
	}
	return c, nil
}

// NewHTTPClient returns what a Client sends its requests with by default, with another transport.
func NewHTTPClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: noRedirect}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func withoutPassword(u *url.URL, text string) string {
	if u != nil && u.User != nil {
		return u.Redacted()
	}
	return text
}

// call is one request.
type call struct {
	method string
	// path is what follows the base URL, its segments unescaped.
	path  []string
	query url.Values
	// body is sent as JSON; nil for none.
	body any
	// extra is how much longer than others the request may take.
	extra time.Duration
}

// rawAnswer is an Answer whose data has not been decoded.
type rawAnswer struct {
	Answer
	Data json.RawMessage `json:"data"`
}

// do sends the request, decodes the answer's data into v, unless that is nil, and returns the answer's message.
func (c *Client) do(ctx context.Context, r call, v any) (message string, err error) {
	status, body, err := c.send(ctx, r)
	if err != nil {
		return "", err
	}
	var answer rawAnswer
	invalid := json.Unmarshal(body, &answer)
	if status < 200 || status > 299 {
		return "", newError(status, answer.Message)
	}
	if invalid == nil && !answer.Success {
		invalid = errors.New("it has no success in it")
	}
	if invalid == nil && v != nil {
		invalid = json.Unmarshal(answer.Data, v)
	}
	if invalid != nil {
		return "", fmt.Errorf("%w: %w", ErrAnswer, invalid)
	}
	return answer.Message, nil
}

// send sends the request and returns the answer's status and body, whatever they are.
func (c *Client) send(ctx context.Context, r call) (status int, body []byte, err error) {
	limit := c.timeout + r.extra
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := c.request(limited, r)
	if err != nil {
		return 0, nil, err
	}
	response, err := c.http.Do(request)
	if err == nil {
		defer response.Body.Close()
		body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	}
	var untrusted *tls.CertificateVerificationError
	switch {
	case err == nil && len(body) > maxAnswer:
		return 0, nil, fmt.Errorf("%w: it has more than %d bytes", ErrAnswer, maxAnswer)
	case err == nil && response.StatusCode >= 300 && response.StatusCode <= 399:
		return 0, nil, newError(response.StatusCode, "it redirects to "+response.Header.Get("Location"))
	case err == nil:
		return response.StatusCode, body, nil
	case ctx.Err() != nil: // the caller's doing
		return 0, nil, err
	case limited.Err() != nil:
		return 0, nil, fmt.Errorf("%w: %s: no answer within %s", ErrUnreachable, c.base.Redacted(), limit)
	case errors.As(err, &untrusted):
		return 0, nil, err // trying again would not help
	default:
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the method and the path, which the caller knows
		}
		return 0, nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, c.base.Redacted(), err)
	}
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	target := *c.base
	escaped := target.EscapedPath()
	for _, segment := range r.path {
		if segment == "" || segment == "." || segment == ".." { // would be another path
			return nil, &Error{StatusCode: http.StatusNotFound, Message: fmt.Sprintf("there is nothing that is called %q", segment)}
		}
		target.Path += "/" + segment
		escaped += "/" + url.PathEscape(segment)
	}
	target.RawPath, target.RawQuery = escaped, r.query.Encode()
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request's body: %w", err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	if r.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	return request, nil
}
