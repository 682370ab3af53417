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

// The wait before the next try doubles from firstWait up to lastWait.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until ping returns nil, and logs each wait. It also ends if Redis answers that the user may not do what ping does:
// waiting would not help. Then it warns if Redis may evict jobs. It returns ctx's cause if ctx
// ends first, and no other error.
func Await(ctx context.Context, rdb redis.UniversalClient, ping func(context.Context) error, log *slog.Logger) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := ping(ctx)
		if err == nil || redis.HasErrorPrefix(err, "NOPERM") {
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

// noEviction is the maxmemory-policy of a Redis that evicts nothing.
const noEviction = "noeviction"

// evictionPolicy returns Redis' maxmemory-policy, or "" if the server does not tell it. In a cluster it is the policy of a
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
