package redisconn

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// Options says where Redis is and who asks: one server, the master that sentinels know, or a cluster. The settings fill
// it; how long a client waits is in Limits.
type Options struct {
	// Addr is host:port of a Redis alone. It is not used with Sentinels or Cluster.
	Addr string
	// Sentinels are host:port of the sentinels of a master; nil when there are none.
	Sentinels []string
	// Master is the name by which the sentinels know the master, and SentinelPassword the sentinels' own password.
	Master, SentinelPassword string
	// Cluster is host:port of some nodes of a cluster; nil when there is none.
	Cluster []string

	// Username is "" for Redis' default user.
	Username string
	Password string
	// DB is the database's number. A cluster has only 0.
	DB int
	// TLS is nil for connections without it.
	TLS *tls.Config
}

// String says where Redis is, for the log. It has no secrets.
func (o Options) String() string {
	var where string
	switch {
	case o.Sentinels != nil:
		where = fmt.Sprintf("%s/%d of the sentinels %s", o.Master, o.DB, strings.Join(o.Sentinels, ","))
	case o.Cluster != nil:
		where = "cluster " + strings.Join(o.Cluster, ",")
	default:
		where = fmt.Sprintf("%s/%d", o.Addr, o.DB)
	}
	if o.TLS != nil {
		where += " with TLS"
	}
	return where
}

// Limits says how long a client waits for Redis, and how often it tries.
type Limits struct {
	// Timeout bounds one connection attempt, and apart from that one try of a command.
	Timeout time.Duration
	// Retries is how often a command that failed on the network is sent again.
	Retries int
	// PoolSize is how many connections there are at most; 0 is go-redis' default, ten for each processor.
	PoolSize int
}

// The limits of the product's clients.
var (
	// Patient is for the scheduler, which would only try again.
	Patient = Limits{Timeout: 3 * time.Second, Retries: 3}
	// Worker is for the worker, which tries again itself: each command ends within 3 s, so that a Redis that hangs does not
	// keep it from stopping in time.
	Worker = Limits{Timeout: 2 * time.Second}
	// Prompt is for the API and for health checks, which owe an answer: a few commands must fit into 2 s. There is a
	// connection for each of a hundred clients, as one that waited for another's would wait too long.
	Prompt = Limits{Timeout: 700 * time.Millisecond, PoolSize: 100}
)

// command is how long a command may take with all its tries.
func (l Limits) command() time.Duration {
	return time.Duration(1+l.Retries) * l.Timeout * 3 / 2 // of the two timeouts in a try one may be used up, not both
}
