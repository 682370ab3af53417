package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions says how to reach Redis.
type RedisOptions struct {
	// Addr is host:port.
	Addr     string
	Password string
	DB       int
	// Timeout bounds one connection attempt, and apart from that one command.
	Timeout time.Duration
	// MaxRetries is how often a command that failed on the network is sent again; -1 is never.
	MaxRetries int
}

// NewRedis returns a client that connects when it is used. It logs a warning when Redis cannot be reached any more and
// a line when it can be again.
func NewRedis(o RedisOptions, log *slog.Logger) *redis.Client {
	client := redis.NewClient(&redis.Options{
		Addr: o.Addr, Password: o.Password, DB: o.DB,
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		MaxRetries:            o.MaxRetries,
		ContextTimeoutEnabled: true,
	})
	client.AddHook(&connectionLog{log: log.With("addr", o.Addr)})
	return client
}

// ConnOpt lets asynq and asynqmon make clients of ours: their own options leave out what ends a command in time.
type ConnOpt struct {
	Options RedisOptions
	Log     *slog.Logger
}

// MakeRedisClient implements asynq.RedisConnOpt. Whoever calls it closes the client.
func (o ConnOpt) MakeRedisClient() any { return NewRedis(o.Options, o.Log) }

// connectionLog is a hook that logs the loss and the return of the connection, once each.
type connectionLog struct {
	log  *slog.Logger
	down atomic.Bool
}

// DialHook implements redis.Hook.
func (c *connectionLog) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		switch {
		case err != nil && ctx.Err() == nil && !c.down.Swap(true):
			c.log.Warn("Redis unreachable, reconnecting", "error", err)
		case err == nil && c.down.Swap(false):
			c.log.Info("Redis reachable again")
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (c *connectionLog) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (c *connectionLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The waits between two tries at a Redis that does not answer double from the first to the last.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 5 * time.Second
)

// Await waits until Redis answers, saying so, or until ctx ends, which is its only error. It then warns of a Redis that
// may throw jobs away.
func Await(ctx context.Context, rdb redis.UniversalClient, log *slog.Logger) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := rdb.Ping(ctx).Err()
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
	case policy != "" && policy != "noeviction":
		log.Warn("Redis may evict jobs when its memory runs out; set maxmemory-policy to noeviction", "maxmemoryPolicy", policy)
	}
	return nil
}

// evictionPolicy returns Redis' maxmemory-policy; "" where the server does not say.
func evictionPolicy(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	info, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return "", fmt.Errorf("reading Redis' memory information: %w", err)
	}
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); found {
			return value, nil
		}
	}
	return "", nil
}
