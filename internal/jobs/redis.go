package jobs

import (
	"context"
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

func (c *connectionLog) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *connectionLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// EvictionPolicy returns Redis' maxmemory-policy, and whether it may remove jobs or what belongs to them when memory
// runs out.
func EvictionPolicy(ctx context.Context, rdb redis.UniversalClient) (policy string, evicts bool, err error) {
	info, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); found {
			return value, value != "noeviction", nil
		}
	}
	return "", false, nil // not every server says
}
