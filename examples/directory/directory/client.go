// Package directory is a client of the company's directory: who the users are, and a way to send them mail.
//
// It does not retry. Its caller knows when to: see Unavailable.
package directory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// PageSize is the highest number of users that the directory answers with. One call of Users asks for a page of them after the
	// other.
	PageSize = 100
	// timeout bounds one request, so that a directory that hangs is away.
	timeout = 10 * time.Second
	// maxAnswer is larger than any answer, in bytes.
	maxAnswer = 1 << 20
)

// User is what the directory knows of a user.
type User struct {
	ID          string `json:"id"`
	Email       string `json:"email"`
	DisplayName string `json:"displayName"`
	Department  string `json:"department"`
}

// Entry is the directory's answer about one user.
type Entry struct {
	User User
	// Err is why the answer is of no use. It does not concern the other users.
	Err error
}

// Mail is a mail to a user.
type Mail struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// Unavailable is the error of a call that can succeed later: the directory is away, or had too many calls.
type Unavailable struct {
	Err error
	// After is how long the directory asks to wait. 0 means that it does not say.
	After time.Duration
}

func (u *Unavailable) Error() string { return u.Err.Error() }

// Unwrap returns what has happened.
func (u *Unavailable) Unwrap() error { return u.Err }

// Client asks a directory. Several goroutines may use it at the same time.
type Client struct {
	base string
	http http.Client
	name string
}

// New returns a client of the directory at a URL such as http://directory:4100.
func New(base string) *Client {
	host, _ := os.Hostname() // a name for people only
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// All requests go to one host. The default keeps two connections to it.
	transport.MaxIdleConnsPerHost = 32
	return &Client{
		base: strings.TrimSuffix(base, "/"),
		http: http.Client{Transport: transport, Timeout: timeout},
		name: fmt.Sprintf("directory-example/%s-%d", cmp.Or(host, "unknown"), os.Getpid()),
	}
}

// Users asks for users, by ID, a page at a time. A user that the directory does not know is not in the answer.
func (c *Client) Users(ctx context.Context, ids []string) (map[string]Entry, error) {
	entries := make(map[string]Entry, len(ids))
	for len(ids) > 0 {
		n := min(len(ids), PageSize)
		if err := c.page(ctx, ids[:n], entries); err != nil {
			return nil, fmt.Errorf("asking the directory for %d users: %w", n, err)
		}
		ids = ids[n:]
	}
	return entries, nil
}

// page adds the directory's answer about the users of one page.
func (c *Client) page(ctx context.Context, ids []string, entries map[string]Entry) error {
	var answer struct {
		Users []json.RawMessage `json:"users"`
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		c.base+"/users?"+url.Values{"ids": {strings.Join(ids, ",")}}.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	if err := c.do(request, &answer); err != nil {
		return err
	}
	for _, data := range answer.Users {
		// The ID first: what is wrong with the rest is then known to be about this user.
		var id struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(data, &id); err != nil {
			return fmt.Errorf("reading whom an entry is about: %w", err)
		}
		var entry Entry
		if err := json.Unmarshal(data, &entry.User); err != nil {
			entry.Err = fmt.Errorf("reading the directory's entry: %w", err)
		} else if !strings.Contains(entry.User.Email, "@") {
			entry.Err = fmt.Errorf("the directory's entry has the email address %q", entry.User.Email)
		}
		entries[id.ID] = entry
	}
	return nil
}

// Send sends a mail, and returns its ID. The directory sends only one mail for a key, however often it is asked to.
func (c *Client) Send(ctx context.Context, key string, mail Mail) (id string, err error) {
	body, err := json.Marshal(mail)
	if err != nil {
		return "", fmt.Errorf("encoding a mail: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/mails", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("sending a mail: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	var answer struct {
		ID string `json:"id"`
	}
	if err := c.do(request, &answer); err != nil {
		return "", fmt.Errorf("sending a mail: %w", err)
	}
	return answer.ID, nil
}

// do sends a request, and decodes the answer.
func (c *Client) do(request *http.Request, answer any) error {
	request.Header.Set("User-Agent", c.name)
	response, err := c.http.Do(request)
	if err != nil {
		return away(request.Context(), err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return away(request.Context(), fmt.Errorf("reading the answer: %w", err))
	}
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests, status == http.StatusBadGateway, status == http.StatusServiceUnavailable,
		status == http.StatusGatewayTimeout:
		return &Unavailable{errors.New("the answer is " + response.Status), retryAfter(response.Header)}
	case status != http.StatusOK:
		return fmt.Errorf("the answer is %s: %.200s", response.Status, body)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// away returns the error of a directory that does not answer, unless it is the caller who does not wait any longer.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &Unavailable{Err: err}
}

// retryAfter returns how long the directory asks to wait, which it says in seconds.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
