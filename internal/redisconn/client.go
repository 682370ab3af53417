// Package redisconn reaches Redis: one server, the master that sentinels know, or a cluster, with or without TLS. Each command
// ends in time. The loss of the connection is logged once. Await waits until Redis answers. The package knows nothing of jobs,
// nor of the keys in Redis.
package redisconn

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// maxRedirects is how many redirects of a cluster a client without retries follows. A key's slot can have moved, and be moving.
const maxRedirects = 2

// New returns a client that connects when it is used. The client logs a warning when it cannot reach Redis any more, and a line
// when it can again. The hooks see the commands for each server. The caller closes the client.
func New(o Options, l Limits, log *slog.Logger, hooks ...redis.Hook) redis.UniversalClient {
	options := &redis.UniversalOptions{
		Username: o.Username, Password: o.Password, DB: o.DB,
		MasterName: o.Master, SentinelPassword: o.SentinelPassword,
		Protocol: 2, // RESP3 brings pushes, which the product does not use; see checkable
		// The dialer bounds one attempt. DialTimeout also bounds the questions to sentinels before that. If the first sentinel
		// hangs, there must be time to ask another one.
		Dialer:      dialer(o.TLS, l.Timeout),
		DialTimeout: l.command(), ReadTimeout: l.Timeout, WriteTimeout: l.Timeout, PoolTimeout: l.Timeout,
		DialerRetries:         1, // a command has its own retries
		MaxRetries:            l.Retries,
		PoolSize:              l.PoolSize,
		PipelinePoolSize:      -1, // pipelines are few and small: they share the connections
		ContextTimeoutEnabled: true,
		ConnMaxIdleTime:       maxIdle, ConnMaxLifetime: maxAge, ConnMaxLifetimeJitter: ageJitter,
		DisableIdentity: true, // a command less for each connection
	}
	if l.Retries == 0 {
		options.MaxRetries = -1 // 0 would mean go-redis' default
		options.MaxRedirects = maxRedirects
	}
	limit := &commandLimit{limit: l.command()}
	own := []redis.Hook{limit} // what it bounds comes after it
	if l.Gentle {
		own = append(own, newGentle(l == Subscription))
	}
	connections, server := newConnectionLog(log), o.Addr
	var client *redis.Client
	switch {
	case o.Cluster != nil:
		options.Addrs = o.Cluster
		return newCluster(options, limit, func(addr string) []redis.Hook { return slices.Concat(own, []redis.Hook{connections.of(addr)}, hooks) })
	case o.Sentinels != nil:
		options.Addrs, server = o.Sentinels, o.Master+" of the sentinels "+strings.Join(o.Sentinels, ",")
		client = redis.NewFailoverClient(options.Failover())
	default:
		options.Addrs = []string{o.Addr}
		client = redis.NewClient(options.Simple())
	}
	for _, hook := range slices.Concat(own, []redis.Hook{connections.of(server)}, hooks) {
		client.AddHook(hook)
	}
	return client
}

func newCluster(options *redis.UniversalOptions, limit *commandLimit, hooks func(addr string) []redis.Hook) redis.UniversalClient {
	client := redis.NewClusterClient(options.Cluster())
	// A node that does not answer may have been replaced. The client itself only looks for that every ten seconds. Look after
	// each failed try, so that the next try can go to another node.
	limit.failed = client.ReloadState
	client.AddHook(limit)
	client.OnNewNode(func(node *redis.Client) {
		for _, hook := range hooks(node.Options().Addr) {
			node.AddHook(hook)
		}
	})
	return client
}

// ConnOpt lets asynq and asynqmon make our clients. Clients made with their own options do not end each command in time.
type ConnOpt struct {
	Options Options
	Limits  Limits
	Log     *slog.Logger
}

// MakeRedisClient implements asynq.RedisConnOpt. The caller closes the client.
func (o ConnOpt) MakeRedisClient() any { return New(o.Options, o.Limits, o.Log) }

// EachMaster calls f for the server, or for each master of a cluster at the same time. It returns one of f's errors.
func EachMaster(ctx context.Context, rdb redis.UniversalClient, f func(context.Context, redis.UniversalClient) error) error {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return f(ctx, rdb)
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return f(ctx, node) })
}
