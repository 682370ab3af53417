package mongodb

import (
	"context"
	"log/slog"
	"time"
)

// The waits between two tries at a MongoDB that does not answer double from the first to the last.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until MongoDB answers, saying so, or until ctx ends, which is its only error.
func Await(ctx context.Context, client *Client, log *slog.Logger) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := client.Ping(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			log.Warn("Waiting for MongoDB", "error", err, "retryIn", wait.String())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
