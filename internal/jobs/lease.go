// Leases of job types. A job type that limits how many of its runs are active at the same time, over all workers, has so many
// leases. A worker holds one for each run that is active on it.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// LeaseTTL is how long a lease lasts if it is not renewed. After a worker died its job type stands still for that long.
	LeaseTTL = 15 * time.Second
	// leaseMargin is how much earlier than Redis the holder considers a lease lost.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost is the error of Renew for a lease that has expired, or that another worker has.
var ErrLeaseLost = errors.New("the lease was lost")

// Lease is the right of one worker to run an asynq Server for a job type's queue. TakeWork takes one. One goroutine uses it at a
// time.
type Lease struct {
	def   tasks.Definition
	jobs  *Jobs
	key   string
	token string // tells the holders apart
	until time.Time
}

// leases returns the keys of a job type's leases.
func (j *Jobs) leases(def tasks.Definition) []string {
	keys := make([]string, def.Overall)
	for number := range keys {
		keys[number] = j.keys.lease(def.Name, number)
	}
	return keys
}

// KEYS: lease. ARGV: token, TTL (ms). Returns whether the lease has the token.
var (
	renewLeaseScript = redis.NewScript(`
return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("PEXPIRE", KEYS[1], ARGV[2]) or 0
`)
	releaseLeaseScript = redis.NewScript(`
return redis.call("GET", KEYS[1]) == ARGV[1] and redis.call("DEL", KEYS[1]) or 0
`)
)

// Until returns the time until which no other worker can have the lease.
func (l *Lease) Until() time.Time { return l.until }

// Renew makes the lease last for another LeaseTTL. It returns ErrLeaseLost if the lease is lost.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	held, err := renewLeaseScript.Run(ctx, l.jobs.rdb, []string{l.key}, l.token, LeaseTTL.Milliseconds()).Bool()
	if err == nil && !held {
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("renewing the lease of %s: %w", l.def.Name, err)
	}
	l.until = asked.Add(LeaseTTL - leaseMargin)
	return nil
}

// Release ends the lease, and announces the queue, so that another worker can take it. Releasing a lost lease is no error.
func (l *Lease) Release(ctx context.Context) error {
	if err := releaseLeaseScript.Run(ctx, l.jobs.rdb, []string{l.key}, l.token).Err(); err != nil {
		return fmt.Errorf("releasing the lease of %s: %w", l.def.Name, err)
	}
	l.jobs.announce(ctx, l.def.Queue())
	return nil
}
