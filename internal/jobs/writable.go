// Whether Redis accepts writes. A Redis without replicas, with a full memory, or that has become a replica answers all reads, and
// no job runs.

package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

const (
	// writeCheckInterval is how long an accepted write is good for.
	writeCheckInterval = 2 * time.Second
	// writeCheckTimeout bounds one write.
	writeCheckTimeout = 2 * time.Second
	// writeCheckTTL is how long the key lasts that CheckWrites writes.
	writeCheckTTL = time.Minute
)

// writeCheck remembers when a write was last accepted, and lets those who ask at the same time share one try.
type writeCheck struct {
	mu       sync.Mutex
	accepted time.Time
	tries    singleflight.Group
}

// CheckWrites returns an error if Redis does not accept writes. It writes a small key for each job type, because on a cluster they
// are on different nodes. An answer that is no error can be 2 s old.
func (j *Jobs) CheckWrites(ctx context.Context) error {
	w := &j.writes
	w.mu.Lock()
	recent := time.Since(w.accepted) < writeCheckInterval
	w.mu.Unlock()
	if recent {
		return nil
	}
	tried := w.tries.DoChan("", func() (any, error) { return nil, j.tryWrite(context.WithoutCancel(ctx)) })
	select {
	case result := <-tried:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("writing to Redis: %w", context.Cause(ctx))
	}
}

// tryWrite writes.
func (j *Jobs) tryWrite(ctx context.Context) error {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, writeCheckTimeout)
	defer cancel()
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, job := range j.registry.Names() {
			p.Set(ctx, j.keys.writable(job), 1, writeCheckTTL)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing to Redis: %w", err)
	}
	j.writes.mu.Lock()
	defer j.writes.mu.Unlock()
	j.writes.accepted = asked
	return nil
}
