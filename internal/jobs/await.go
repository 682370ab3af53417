package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Waiting for Redis, and asking whether it is there.

// The waits between two tries at a Redis that does not answer double from the first to the last.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until Redis answers, saying so, or until ctx ends, which is its only error. It then warns of a Redis that
// may throw jobs away.
func Await(ctx context.Context, rdb redis.UniversalClient, log *slog.Logger) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := ping(ctx, rdb, processesKey(RoleWorker))
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

// ping returns an error when Redis does not answer. Any node of a cluster answers a PING, even when it cannot reach the
// others: there, what is asked for is one key after another in the slots that matter.
func ping(ctx context.Context, rdb redis.UniversalClient, keys ...string) error {
	if _, ok := rdb.(*redis.ClusterClient); !ok {
		return rdb.Ping(ctx).Err()
	}
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Exists(ctx, key)
		}
		return nil
	})
	return err
}

// noEviction is the maxmemory-policy that keeps everything.
const noEviction = "noeviction"

// evictionPolicy returns Redis' maxmemory-policy; "" where the server does not say. Of the masters of a cluster it is
// that of one which is not as it should be, if there is one.
func evictionPolicy(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	var mu sync.Mutex
	var found string
	err := eachMaster(ctx, rdb, func(ctx context.Context, node redis.UniversalClient) error {
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
