// A consumer turns work in a queue into sessions.

package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// backOffTime is how long a worker leaves the ranges of a job type to other workers, after it has taken one that only a newer
// release understands.
const backOffTime = 30 * time.Second

// consumer works on one queue. Whenever there is something to do it runs a session. A queue whose runs are limited over all
// workers needs a lease for each active run, and so a session for each.
type consumer struct {
	w      *Worker
	def    tasks.Definition
	unit   unit
	queue  string
	leased bool // a session needs a lease
	// sessions is how many sessions there are at the same time, and handlers how many handlers each has.
	sessions, handlers int
	metrics            *jobMetrics
	log                *slog.Logger

	woken      chan struct{} // has a value while a look is wanted
	work       chan struct{} // has a value while there is something to do
	backingOff atomic.Int64  // the time (ns) until which the queue is left to other workers
}

func newConsumer(w *Worker, def tasks.Definition, u unit) *consumer {
	c := &consumer{
		w: w, def: def, unit: u, queue: u.queue(def), metrics: w.metrics[def.Name], log: w.log.With("job", def.Name),
		woken: make(chan struct{}, 1), work: make(chan struct{}, 1), sessions: 1, handlers: 1,
	}
	switch {
	case u == unitRange:
	case def.Overall > 0:
		c.leased, c.sessions = true, min(def.PerWorker, def.Overall)
	default:
		c.handlers = def.PerWorker
	}
	return c
}

// signal puts a value into a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has one
	}
}

// wake makes the consumer look at its queue now.
func (c *consumer) wake() { signal(c.woken) }

// announced makes the consumer work on its queue. A consumer with a lease looks when it takes that, one without must look first.
func (c *consumer) announced() {
	if c.leased {
		signal(c.work)
	} else {
		c.wake()
	}
}

// run consumes until ctx ends.
func (c *consumer) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { c.look(ctx) })
	for range c.sessions {
		all.Go(func() {
			for {
				select {
				case <-c.work:
					c.consume(ctx)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
}

// look looks for work each time that the consumer is woken, and when a task is due.
func (c *consumer) look(ctx context.Context) {
	due := time.NewTimer(0)
	due.Stop()
	for {
		select {
		case <-c.woken:
		case <-due.C:
		case <-ctx.Done():
			return
		}
		looking, cancel := context.WithTimeout(ctx, lookTimeout)
		found, err := c.w.jobs.FindWork(looking, c.queue)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				c.log.Debug("Could not look for work", "queue", c.queue, "error", err)
			}
			continue
		}
		c.logRescued(found)
		if found.Pending && time.Now().UnixNano() >= c.backingOff.Load() {
			signal(c.work)
		}
		if !found.Next.IsZero() {
			due.Reset(max(0, time.Until(found.Next)))
		}
	}
}

// logRescued says which tasks a look has put back.
func (c *consumer) logRescued(found jobs.Work) {
	for _, id := range found.Rescued {
		c.log.Info("Put back a task whose worker is lost", "queue", c.queue, "task", id)
	}
}

// backOff leaves the queue to other workers for a while.
func (c *consumer) backOff() { c.backingOff.Store(time.Now().Add(backOffTime).UnixNano()) }

// consume waits for a free place, takes a lease if there is work, and runs one session.
func (c *consumer) consume(ctx context.Context) {
	if c.w.places.Acquire(ctx, 1) != nil { // in the order in which the consumers ask
		return
	}
	reserved := c.w.place()
	defer reserved()
	var lease *jobs.Lease
	if c.leased {
		taking, cancel := context.WithTimeout(ctx, lookTimeout)
		found, err := c.w.jobs.TakeWork(taking, c.def)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.log.Debug("Could not take work", "queue", c.queue, "error", err)
		}
		c.logRescued(found)
		if lease = found.Lease; lease == nil {
			return // if another worker has it, it announces its release
		}
	}
	if c.sessions > 1 {
		c.wake() // there may be more work than this session takes
	}
	s := newSession(c, lease, reserved)
	reason := s.run(ctx)
	if lease != nil && !errors.Is(reason, errLeaseLost) && !errors.Is(reason, errRedisHangs) {
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		if err := lease.Release(releasing); err != nil {
			c.log.Debug("Could not release the lease", "error", err)
		}
	}
	select { // the session may have done this work: look again
	case <-c.work:
	default:
	}
	c.wake()
}

// trim removes the oldest ended runs, beyond the numbers that the job type keeps.
func (c *consumer) trim(ctx context.Context) {
	if err := c.w.jobs.Trim(ctx, c.def); err != nil {
		c.log.Debug("Could not trim ended runs", "error", err)
	}
}
