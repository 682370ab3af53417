// Waiting for MongoDB at the start of a program.

package mongodb

import (
	"context"
	"log/slog"
	"time"
)

// The wait before the next try doubles from firstWait up to lastWait.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until MongoDB answers, and logs each wait. It returns ctx's cause if ctx ends first, and no other error.
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
