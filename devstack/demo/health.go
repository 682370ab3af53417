package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	healthTimeout  = 60 * time.Second
	requestTimeout = 2 * time.Second
	healthPoll     = 200 * time.Millisecond
	// maxHealth is larger than any health document, in bytes.
	maxHealth = 1 << 20
)

// untilHealthy asks the API for its health until its jobs are initialised, ctx ends or timeout has passed.
func untilHealthy(ctx context.Context, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := &http.Client{Timeout: requestTimeout}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(healthPoll)
	defer ticker.Stop()
	var said error // what the last answer lacked; a question that the deadline cuts off says nothing
	for {
		err := askHealth(ctx, client, url)
		if err == nil {
			return nil
		}
		if said == nil || ctx.Err() == nil {
			said = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API was not ready within %v: %w", timeout, said)
		case <-ticker.C:
		}
	}
}

// askHealth asks once. The status code does not matter: it is also about other things.
func askHealth(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var health struct {
		Jobs struct {
			Initialized bool `json:"initialized"`
		} `json:"jobs"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxHealth)).Decode(&health); err != nil {
		return fmt.Errorf("reading the answer of %s (%s): %w", url, res.Status, err)
	}
	if !health.Jobs.Initialized {
		return fmt.Errorf("%s (%s) says that jobs are not initialised", url, res.Status)
	}
	return nil
}
