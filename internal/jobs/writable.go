// Whether Redis accepts writes. A Redis without replicas, with a full memory, or that has become a replica answers all reads, and
// no job runs.

package jobs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// writeCheckInterval is how long an answer of CheckWrites is good for.
	writeCheckInterval = 2 * time.Second
	// writeCheckTTL is how long the key lasts that CheckWrites writes.
	writeCheckTTL = time.Minute
)

// writeCheck remembers the latest answer of CheckWrites.
type writeCheck struct {
	mu     sync.Mutex
	asked  time.Time
	answer error
}

// CheckWrites returns an error if Redis does not accept writes. It writes a small key for each job type, because on a cluster they
// are on different nodes. The answer can be 2 s old.
func (j *Jobs) CheckWrites(ctx context.Context) error {
	w := &j.writes
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asked.IsZero() && time.Since(w.asked) < writeCheckInterval {
		return w.answer
	}
	asked := time.Now()
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, job := range j.registry.Names() {
			p.Set(ctx, j.keys.writable(job), 1, writeCheckTTL)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("writing to Redis: %w", err)
	}
	if ctx.Err() == nil { // otherwise it says more of the caller than of Redis
		w.asked, w.answer = asked, err
	}
	return err
}
