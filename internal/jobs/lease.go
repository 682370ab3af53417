// Leases of job types: they bound how many workers run an asynq Server for the same queue.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bsm/redislock"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// LeaseTTL is how long a lease lasts if it is not renewed. After a worker died its job type stands still for that long.
	LeaseTTL = 15 * time.Second
	// leaseMargin is how much earlier than Redis the holder considers a lease lost.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost is the error of Renew for a lease that has expired, or that another worker has.
var ErrLeaseLost = errors.New("the lease was lost")

// Lease is the right of one worker to run an asynq Server for a job type's queue. One goroutine uses it at a time.
type Lease struct {
	def   tasks.Definition
	jobs  *Jobs
	lock  *redislock.Lock
	until time.Time
}

// Acquire tries once to take one of the job type's leases. It returns nil and no error if other workers have all of them.
func (j *Jobs) Acquire(ctx context.Context, def tasks.Definition) (*Lease, error) {
	for number := range def.Leases {
		asked := time.Now()
		lock, err := redislock.Obtain(ctx, j.rdb, j.keys.lease(def.Name, number), LeaseTTL, nil)
		switch {
		case err == nil:
			return &Lease{def: def, jobs: j, lock: lock, until: asked.Add(LeaseTTL - leaseMargin)}, nil
		case !errors.Is(err, redislock.ErrNotObtained):
			return nil, fmt.Errorf("acquiring the lease of %s: %w", def.Name, err)
		}
	}
	return nil, nil
}

// Until returns the time until which no other worker can have the lease.
func (l *Lease) Until() time.Time { return l.until }

// Renew makes the lease last for another LeaseTTL. It returns ErrLeaseLost if the lease is lost.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	err := l.lock.Refresh(ctx, LeaseTTL, nil)
	if errors.Is(err, redislock.ErrNotObtained) {
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
	err := l.lock.Release(ctx)
	if err != nil && !errors.Is(err, redislock.ErrLockNotHeld) {
		return fmt.Errorf("releasing the lease of %s: %w", l.def.Name, err)
	}
	l.jobs.announce(ctx, l.def.Queue())
	return nil
}
