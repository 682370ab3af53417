package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
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
	rdb   redis.UniversalClient
	lock  *redislock.Lock
	until time.Time
}

// Acquire tries once to take the lease of the job type. It returns nil and no error when another worker has it.
func (j *Jobs) Acquire(ctx context.Context, job string) (*Lease, error) {
	asked := time.Now()
	lock, err := redislock.Obtain(ctx, j.rdb, leaseKey(job), LeaseTTL, nil)
	if errors.Is(err, redislock.ErrNotObtained) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("acquiring the lease of %s: %w", job, err)
	}
	return &Lease{job: job, rdb: j.rdb, lock: lock, until: asked.Add(LeaseTTL - leaseMargin)}, nil
}

// Until is the time up to which the lease is certainly ours.
func (l *Lease) Until() time.Time { return l.until }

// Renew makes the lease last for another LeaseTTL. It returns ErrLeaseLost when it is ours no more.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	err := l.lock.Refresh(ctx, LeaseTTL, nil)
	switch {
	case errors.Is(err, redislock.ErrNotObtained):
		return fmt.Errorf("renewing the lease of %s: %w", l.job, ErrLeaseLost)
	case err != nil:
		return fmt.Errorf("renewing the lease of %s: %w", l.job, err)
	}
	l.until = asked.Add(LeaseTTL - leaseMargin)
	return nil
}

// Release gives the lease up and tells the other workers. A lease that is lost already is no error.
func (l *Lease) Release(ctx context.Context) error {
	err := l.lock.Release(ctx)
	if err != nil && !errors.Is(err, redislock.ErrLockNotHeld) {
		return fmt.Errorf("releasing the lease of %s: %w", l.job, err)
	}
	if err := l.rdb.Publish(ctx, leaseChannel, l.job).Err(); err != nil {
		return fmt.Errorf("announcing the release of the lease of %s: %w", l.job, err)
	}
	return nil
}

// Releases returns a channel of the names of job types whose lease was just released. It ends with close, which the
// caller must call. Announcements may be missed while Redis is away.
func (j *Jobs) Releases(ctx context.Context) (released <-chan *redis.Message, stop func() error) {
	subscription := j.rdb.Subscribe(ctx, leaseChannel)
	return subscription.Channel(), subscription.Close
}
