// Where Redis is, and how long a client waits for it.

package redisconn

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// Options says where Redis is, and how to log in: at one server, the master that sentinels know, or a cluster. The configuration
// fills it.
type Options struct {
	// Addr is the host:port of a single server. It is not used with Sentinels or Cluster.
	Addr string
	// Sentinels are the host:port of the sentinels. It is nil without sentinels.
	Sentinels []string
	// Master is the name that the sentinels have for the master. SentinelPassword is the sentinels' own password.
	Master, SentinelPassword string
	// Cluster is the host:port of some nodes of a cluster. It is nil without a cluster.
	Cluster []string

	// Username is "" for Redis' default user.
	Username string
	Password string
	// DB is the number of the database. A cluster only has 0.
	DB int
	// TLS is nil for connections without TLS.
	TLS *tls.Config
}

// String returns where Redis is, for the log. It has no secrets.
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
	// Timeout bounds each connection attempt, and each try of a command on a connection.
	Timeout time.Duration
	// Retries is how often a command that failed on the network is sent again.
	Retries int
	// PoolSize bounds the number of connections. The default is go-redis' own: ten for each processor.
	PoolSize int
	// Gentle makes a client of loops that ask at once again after an error, as asynq's do: while Redis refuses or cannot be
	// reached, the client sends few commands a second.
	Gentle bool
}

// The limits of the product's clients.
var (
	// Retrying is for the scheduler: a command is tried up to four times, in about 12 s.
	Retrying = Limits{Timeout: 3 * time.Second, Retries: 3, Gentle: true}
	// Worker is for the worker, which retries by itself. Each command ends within 3 s, so that a worker stops in time even if
	// Redis hangs.
	Worker = Limits{Timeout: 2 * time.Second, Gentle: true}
	// Subscription is for a client of the worker's that only has a subscription.
	Subscription = Limits{Timeout: 2 * time.Second, PoolSize: 1, Gentle: true}
	// Prompt is for the API and for health checks, which must answer within 2 s: a command that meets a dead connection is tried
	// once more in that time. A hundred clients have a connection each, because waiting for one would take too long.
	Prompt = Limits{Timeout: 600 * time.Millisecond, Retries: 1, PoolSize: 100}
	// Long is for the API's commands that take Redis long: long lists, and cleanup. They are not tried again, because the answer must
	// come within 2 s.
	Long = Limits{Timeout: 1200 * time.Millisecond}
)

const (
	// maxIdle is how long a connection may be idle. It is below the time after which usual firewalls and proxies drop idle
	// connections, often without a word: 50 s with the examples of HAProxy, 4 to 6 min in clouds.
	maxIdle = 30 * time.Second
	// maxAge, give or take ageJitter, is how long a connection is used. So no client stays with a server that a proxy, or a name, no
	// longer stands for.
	maxAge    = time.Minute
	ageJitter = 10 * time.Second
)

// command returns how long a command may take with all its tries.
func (l Limits) command() time.Duration {
	return time.Duration(1+l.Retries) * l.Timeout * 3 / 2 // a try has two timeouts, and can use up one of them, but not both
}
