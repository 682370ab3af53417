package worker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// contestInterval is how often a worker tries to take a lease that another one holds. Most of the time it need not
	// wait for it: a release is announced.
	contestInterval = time.Second
	// courtesy is how long a worker leaves a lease to the others after it has handed it over.
	courtesy = 100 * time.Millisecond
	// renewInterval is how often a lease is renewed.
	renewInterval = jobs.LeaseTTL / 4
	// trimInterval is how often ended runs are trimmed while nothing else happens.
	trimInterval = time.Second
	// cancelInterval is how often it is looked whether somebody wants the run that is worked on to end.
	cancelInterval = 250 * time.Millisecond

	// taskCheckInterval is how often an idle queue is looked at, on average: a triggered run starts after half of it at
	// the median. At asynq's default of 1 s that would be half a second.
	taskCheckInterval = 20 * time.Millisecond
	// retryRounding makes up for asynq cutting the time of a retry to whole seconds: on average it is right then.
	retryRounding = 500 * time.Millisecond
)

// The reasons for which a run is stopped, which cost it no attempt.
var (
	errShutdown  = errors.New("the worker shuts down")
	errLeaseLost = errors.New("the worker lost the lease of the job type")
)

// errCancelled is the reason of a run that somebody has cancelled.
var errCancelled = errors.New("cancelled")

// consumer works on one job type's queue whenever its worker holds the job type's lease: so at most one run of a job
// type is active, over all workers, and the next one stays in the queue.
type consumer struct {
	w       *Worker
	def     tasks.Definition
	metrics *jobMetrics
	awaken  chan struct{}
	log     *slog.Logger
}

func newConsumer(w *Worker, def tasks.Definition) *consumer {
	return &consumer{
		w: w, def: def, metrics: w.metrics[def.Name], awaken: make(chan struct{}, 1), log: w.log.With("job", def.Name),
	}
}

// wake makes the consumer try for the lease now.
func (c *consumer) wake() {
	select {
	case c.awaken <- struct{}{}:
	default: // it is about to
	}
}

// run contends for the lease, and consumes while it holds it, until ctx ends.
func (c *consumer) run(ctx context.Context) {
	for ctx.Err() == nil {
		free, changed := c.w.slots.watch()
		if free == 0 { // another worker may have a slot for what comes
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		lease, err := c.w.jobs.Acquire(ctx, c.def.Name)
		if lease == nil {
			if err != nil && ctx.Err() == nil {
				c.log.Debug("Could not contend for the lease", "error", err)
			}
			pause(ctx, contestInterval/2+rand.N(contestInterval), c.awaken)
			continue
		}
		if handedOver := c.consume(ctx, lease); handedOver {
			pause(ctx, courtesy, nil)
			select { // what woke us meanwhile was our own release
			case <-c.awaken:
			default:
			}
		}
	}
}

// pause waits until the time is over, ctx ends or awaken has a value.
func pause(ctx context.Context, d time.Duration, awaken <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-awaken:
	case <-ctx.Done():
	}
}

// consume runs an asynq Server for the queue until ctx ends, the lease is lost, or another worker should have it, which
// it then returns as true.
func (c *consumer) consume(ctx context.Context, lease *jobs.Lease) (handOver bool) {
	s := newSession(c.w, c.log, c.attempt)
	reason := errShutdown
	err := s.serve(asynq.Config{
		Queues:            map[string]int{c.def.Name: 1},
		TaskCheckInterval: taskCheckInterval,
		RetryDelayFunc:    c.retryDelay,
	}, func() error {
		var err error
		if handOver, err = c.watch(ctx, lease, s); err != nil {
			reason = err
			c.log.Warn("Lost the lease", "error", err)
		}
		return reason
	}, func(drained <-chan struct{}) { c.keep(ctx, s, drained) })
	if err != nil {
		c.log.Error("Could not start an asynq Server", "error", err)
		handOver = true
	}
	if !errors.Is(reason, errLeaseLost) {
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		if err := lease.Release(releasing); err != nil {
			c.log.Debug("Could not release the lease", "error", err)
		}
	}
	return handOver
}

// watch keeps the lease. It returns when ctx ends, when another worker should have the lease (true), or with
// errLeaseLost. Nothing in it may take long: the lease must not be believed in for longer than Redis keeps it.
func (c *consumer) watch(ctx context.Context, lease *jobs.Lease, s *session) (handOver bool, err error) {
	renew := time.NewTicker(renewInterval)
	defer renew.Stop()
	for {
		if !time.Now().Before(lease.Until()) {
			return false, errLeaseLost
		}
		free, changed := c.w.slots.watch()
		if free == 0 && !s.busy.Load() {
			return true, nil
		}
		expired := time.NewTimer(time.Until(lease.Until()))
		select {
		case <-ctx.Done():
			expired.Stop()
			return false, nil
		case <-expired.C:
		case <-renew.C:
			if err := c.renew(ctx, lease); errors.Is(err, jobs.ErrLeaseLost) {
				expired.Stop()
				return false, errLeaseLost
			}
		case <-s.yield:
			expired.Stop()
			return true, nil
		case <-changed:
		}
		expired.Stop()
	}
}

// keep does what is to be done beside the runs of a session, and may take its time when Redis is slow: it waits for
// asynq to record how a run has ended, trims what has ended, and looks for runs whose worker died. It ends when drained
// is closed.
func (c *consumer) keep(ctx context.Context, s *session, drained <-chan struct{}) {
	trim := time.NewTicker(trimInterval)
	defer trim.Stop()
	cancelled := time.NewTicker(cancelInterval)
	defer cancelled.Stop()
	orphans := time.NewTicker(orphanInterval)
	defer orphans.Stop()
	var orphaned time.Time // when a run was seen that its worker has left behind
	for {
		select {
		case task := <-s.ended:
			s.settle(task)
			c.trim(ctx)
			if !s.busy.Load() && c.w.othersLive(ctx) { // when the next run has begun already, after that
				s.end()
			}
		case <-trim.C:
			c.trim(ctx)
		case <-cancelled.C:
			s.cancelWanted(func(id string) bool {
				wanted, err := c.w.jobs.IsCancelled(ctx, c.def, id)
				return err == nil && wanted
			})
		case <-orphans.C:
			orphaned = c.w.lookForOrphans(c.def.Name, orphaned)
			if !orphaned.IsZero() && time.Since(orphaned) > orphanGrace && !s.busy.Load() {
				c.log.Debug("Starting anew to recover a run from a dead worker")
				s.end()
			}
		case <-drained:
			s.settleRest()
			return
		}
	}
}

func (c *consumer) renew(ctx context.Context, lease *jobs.Lease) error {
	ctx, cancel := context.WithDeadline(ctx, lease.Until())
	defer cancel()
	err := lease.Renew(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Debug("Could not renew the lease", "error", err)
	}
	return err
}

func (c *consumer) trim(ctx context.Context) {
	if err := c.w.jobs.Trim(ctx, c.def); err != nil && ctx.Err() == nil {
		c.log.Debug("Could not trim ended runs", "error", err)
	}
}

// lookForOrphans returns since when there are tasks in the queue whose worker has left them behind; the zero time when
// there are none.
func (w *Worker) lookForOrphans(queue string, since time.Time) time.Time {
	found, err := w.jobs.HasOrphans(queue)
	switch {
	case err != nil:
		return since
	case !found:
		return time.Time{}
	case since.IsZero():
		return time.Now()
	}
	return since
}

// retryDelay implements asynq.RetryDelayFunc.
func (c *consumer) retryDelay(_ int, err error, _ *asynq.Task) time.Duration {
	return retryDelay(c.def, err)
}

// retryDelay is the wait after an attempt that ended with the error. What was not the task's fault is tried again at once.
func retryDelay(def tasks.Definition, err error) time.Duration {
	var failed failedAttempt
	switch {
	case errors.As(err, &failed):
		return def.RetryDelay(failed.number) + retryRounding
	case errors.Is(err, errPostponed):
		return postponeDelay
	}
	return 0
}
