// Waiting for Redis at the start of a program.

package redisconn

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// The waits between two tries at a Redis that does not answer double from the first to the last.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until ping returns nil, and logs each wait, or until ctx ends, which is its only error. Then it warns of a
// Redis that may evict jobs.
func Await(ctx context.Context, rdb redis.UniversalClient, ping func(context.Context) error, log *slog.Logger) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := ping(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			log.Warn("Waiting for Redis", "error", err, "retryIn", wait.String())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	switch policy, err := evictionPolicy(ctx, rdb); {
	case err != nil:
		log.Debug("Could not read Redis' eviction policy", "error", err)
	case policy != "" && policy != noEviction:
		log.Warn("Redis may evict jobs when its memory runs out; set maxmemory-policy to noeviction", "maxmemoryPolicy", policy)
	}
	return nil
}

// noEviction is the maxmemory-policy that keeps everything.
const noEviction = "noeviction"

// evictionPolicy returns Redis' maxmemory-policy; "" where the server does not say. Of a cluster it is the policy of a
// master that may evict, if there is one.
func evictionPolicy(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	var mu sync.Mutex
	var found string
	err := EachMaster(ctx, rdb, func(ctx context.Context, node redis.UniversalClient) error {
		info, err := node.Info(ctx, "memory").Result()
		if err != nil {
			return fmt.Errorf("reading Redis' memory information: %w", err)
		}
		for line := range strings.Lines(info) {
			value, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:")
			mu.Lock()
			if ok && (found == "" || found == noEviction) {
				found = value
			}
			mu.Unlock()
		}
		return nil
	})
	return found, err
}
