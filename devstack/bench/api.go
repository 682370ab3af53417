// The bench measures the API over HTTP, as its clients use it.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

const (
	// requestTimeout is longer than the API ever takes.
	requestTimeout = 10 * time.Second
	// maxAnswer is larger than any answer, in bytes.
	maxAnswer = 1 << 20
)

// api is a client of the product's API.
type api struct {
	base   string
	port   *freeport.Port
	client *http.Client
}

// newAPI returns the API to start, and a client of it for so many requests at a time.
func newAPI(clients int) (spec, *api, error) {
	port, err := freeport.Reserve()
	if err != nil {
		return spec{}, nil, err
	}
	a := &api{"http://" + port.Address(), port, &http.Client{
		Timeout: requestTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: clients},
	}}
	return spec{program: apiProgram, ready: procs.Ready(procs.API), settings: settings{"HOST": "127.0.0.1", "PORT": port.String()}}, a, nil
}

func (a *api) close() {
	a.client.CloseIdleConnections()
	_ = a.port.Release() // nothing depends on it any more
}

// ask sends a request, with JSON unless that is empty, and decodes the data of the answer.
func (a *api) ask(ctx context.Context, method, path, body string, data any) error {
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err // it names the URL
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if err := json.Unmarshal(text, &struct{ Data any }{data}); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}
