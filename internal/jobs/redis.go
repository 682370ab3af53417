package jobs

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions says how to reach Redis: one server, the master that sentinels know of, or a cluster.
type RedisOptions struct {
	// Addr is host:port of a Redis alone. It is not used with one of the other two.
	Addr string
	// Sentinels are host:port of the sentinels of a master; nil when there are none.
	Sentinels []string
	// Master is the name by which the sentinels know it, and SentinelPassword their own password.
	Master, SentinelPassword string
	// Cluster is host:port of some nodes of a cluster; nil when it is none.
	Cluster []string

	// Username is "" for the default user.
	Username string
	Password string
	DB       int
	// TLS is nil for connections without it.
	TLS *tls.Config
	// Timeout bounds one connection attempt, and apart from that one command.
	Timeout time.Duration
	// MaxRetries is how often a command that failed on the network is sent again; -1 is never.
	MaxRetries int
	// PoolSize is how many connections there may be; 0 is go-redis' default, ten for each processor.
	PoolSize int
}

// limit is how long a command may take with all its tries.
func (o RedisOptions) limit() time.Duration {
	tries := 1 + max(o.MaxRetries, 0)
	if o.MaxRetries == 0 {
		tries = 1 + defaultRetries
	}
	return time.Duration(tries) * o.Timeout * 3 / 2 // of the two timeouts in a try one may be used up, not both
}

// defaultRetries is go-redis' MaxRetries where it is not set.
const defaultRetries = 3

// maxRedirects is how often a command is sent to another node of a cluster, or again, when it must not be retried
// otherwise: a slot may have moved, and be moving.
const maxRedirects = 2

// NewRedis returns a client that connects when it is used. It logs a warning when Redis cannot be reached any more and
// a line when it can be again.
func NewRedis(o RedisOptions, log *slog.Logger) redis.UniversalClient {
	options := &redis.UniversalOptions{
		Username: o.Username, Password: o.Password, DB: o.DB,
		MasterName: o.Master, SentinelPassword: o.SentinelPassword,
		Dialer:      dialer(o.TLS, o.Timeout),
		DialTimeout: o.Timeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout,
		MaxRetries:            o.MaxRetries,
		PoolSize:              o.PoolSize,
		ContextTimeoutEnabled: true,
	}
	switch {
	case o.Cluster != nil:
		return newCluster(o, options, log)
	case o.Sentinels != nil:
		options.Addrs = o.Sentinels
		client := redis.NewFailoverClient(options.Failover())
		client.AddHook(&patience{limit: o.limit()})
		client.AddHook(newConnectionLog(log, o.Master+" of the sentinels "+strings.Join(o.Sentinels, ",")))
		return client
	}
	options.Addrs = []string{o.Addr}
	client := redis.NewClient(options.Simple())
	client.AddHook(&patience{limit: o.limit()})
	client.AddHook(newConnectionLog(log, ""))
	return client
}

func newCluster(o RedisOptions, options *redis.UniversalOptions, log *slog.Logger) redis.UniversalClient {
	options.Addrs = o.Cluster
	if o.MaxRetries < 0 {
		options.MaxRedirects = maxRedirects
	}
	client := redis.NewClusterClient(options.Cluster())
	// A node that does not answer may have been replaced, for which the client itself would look every ten seconds only. It
	// is looked for after each try, so that the next one may go to another node.
	hook, connections := &patience{limit: o.limit(), failed: client.ReloadState}, newConnectionLog(log, "")
	client.AddHook(hook)
	client.OnNewNode(func(node *redis.Client) {
		node.AddHook(hook)
		node.AddHook(connections)
	})
	return client
}

// ConnOpt lets asynq and asynqmon make clients of ours: their own options leave out what ends a command in time.
type ConnOpt struct {
	Options RedisOptions
	Log     *slog.Logger
}

// MakeRedisClient implements asynq.RedisConnOpt. Whoever calls it closes the client.
func (o ConnOpt) MakeRedisClient() any { return NewRedis(o.Options, o.Log) }

// eachMaster calls f for the server, or at the same time for each master of a cluster. It returns one of its errors.
func eachMaster(ctx context.Context, rdb redis.UniversalClient, f func(context.Context, redis.UniversalClient) error) error {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return f(ctx, rdb)
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return f(ctx, node) })
}
