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
	// LeaseTTL is how long a lease lasts without being renewed, and so how long a job type stands still after its
	// worker died.
	LeaseTTL = 15 * time.Second
	// leaseMargin is how much earlier than Redis its holder takes a lease for lost.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost is returned when a lease has expired or is another's.
var ErrLeaseLost = errors.New("the lease was lost")

// Lease is the right to work on one job type's queue. One goroutine uses it at a time.
type Lease struct {
	job   string
	jobs  *Jobs
	lock  *redislock.Lock
	until time.Time
}

// Acquire tries once to take one of the leases of the job type. It returns nil and no error when other workers have all of
// them.
func (j *Jobs) Acquire(ctx context.Context, def tasks.Definition) (*Lease, error) {
	for number := range def.Leases {
		asked := time.Now()
		lock, err := redislock.Obtain(ctx, j.rdb, leaseKey(def.Name, number), LeaseTTL, nil)
		switch {
		case err == nil:
			return &Lease{job: def.Name, jobs: j, lock: lock, until: asked.Add(LeaseTTL - leaseMargin)}, nil
		case !errors.Is(err, redislock.ErrNotObtained):
			return nil, fmt.Errorf("acquiring the lease of %s: %w", def.Name, err)
		}
	}
	return nil, nil
}

// Until is the time up to which the lease is certainly ours.
func (l *Lease) Until() time.Time { return l.until }

// Renew makes the lease last for another LeaseTTL. It returns ErrLeaseLost when it is ours no more.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	err := l.lock.Refresh(ctx, LeaseTTL, nil)
	if errors.Is(err, redislock.ErrNotObtained) {
		err = ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("renewing the lease of %s: %w", l.job, err)
	}
	l.until = asked.Add(LeaseTTL - leaseMargin)
	return nil
}

// Release gives the lease up and announces that the queue is free. A lease that is lost already is no error.
func (l *Lease) Release(ctx context.Context) error {
	err := l.lock.Release(ctx)
	if err != nil && !errors.Is(err, redislock.ErrLockNotHeld) {
		return fmt.Errorf("releasing the lease of %s: %w", l.job, err)
	}
	l.jobs.announce(ctx, l.job)
	return nil
}
