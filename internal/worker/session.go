package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// lingerTime is how long a session stays when there is nothing to do, so that a burst of triggers does not start one each.
	lingerTime = time.Second
	// reserveTime is how long a session keeps the place of a handler free for a task that does not come.
	reserveTime = 250 * time.Millisecond
	// taskCheckInterval is how often an asynq Server with nothing to do looks at its queue, on average.
	taskCheckInterval = 5 * time.Millisecond
	// delayedTaskCheckInterval is how often it looks for retries; asynq's default of 5 s would delay each by that.
	delayedTaskCheckInterval = 250 * time.Millisecond
	// renewInterval is how often a lease is renewed.
	renewInterval = jobs.LeaseTTL / 4
	// abandonTimeout is how long a handler may take to return after its context has ended.
	abandonTimeout = time.Second
	// abortTimeout is how long asynq waits, when its Server is shut down, for a task before it pushes it back to the
	// queue. The task's handler has stopped working before, and waits for just that.
	abortTimeout = time.Millisecond
	// shutdownTimeout is how long a Server may take to shut down; a Redis that hangs would keep it for longer.
	shutdownTimeout = 3 * time.Second
	// recordedTimeout bounds the wait until asynq has recorded how a task has ended, and recordedPoll is between two looks.
	recordedTimeout = 2 * time.Second
	recordedPoll    = 5 * time.Millisecond
)

// The reasons for which attempts are stopped, which cost them nothing.
var (
	errShutdown  = errors.New("the worker shuts down")
	errLeaseLost = errors.New("the worker lost the lease of the job type")
)

// errRedisHangs is the reason of a session whose Server did not shut down in time.
var errRedisHangs = errors.New("the asynq Server did not shut down in time")

// errReleased says that a task is to be pushed back to its queue.
var errReleased = errors.New("released")

// session is the life of one asynq Server, and the asynq.Handler of it. What a task is, is up to attempt.
//
// A task is asked to stop (stopping is closed), and when it does not its context ends. Then its handler does not return
// but waits for asynq to push the task back to the queue (released), because for asynq every return is the end of an
// attempt.
type session struct {
	c     *consumer
	lease *jobs.Lease // nil where the queue needs none
	log   *slog.Logger

	changed  chan struct{} // has a value when a task has begun or ended
	over     chan struct{} // has a value when another worker should have the queue
	stopping chan struct{}
	released chan struct{}
	working  context.Context // ends when tasks are abandoned
	abandon  context.CancelCauseFunc

	mu        sync.Mutex
	reserved  func()                   // frees the place that is kept for the first handler; nil once it is used
	running   map[string]chan struct{} // by task ID: closed when the attempt is over
	handlers  sync.WaitGroup
	recording sync.WaitGroup // of the ends of tasks
}

func newSession(c *consumer, lease *jobs.Lease, reserved func()) *session {
	s := &session{
		c: c, lease: lease, log: c.log, reserved: reserved,
		changed: make(chan struct{}, 1), over: make(chan struct{}, 1),
		stopping: make(chan struct{}), released: make(chan struct{}), running: make(map[string]chan struct{}),
	}
	s.working, s.abandon = context.WithCancelCause(context.Background())
	return s
}

// subscriber is a client whose subscriptions have a connection of their own, which can be closed while Redis hangs: asynq
// waits for the answer to a SUBSCRIBE without end.
type subscriber struct {
	redis.UniversalClient
	subscriptions redis.UniversalClient
}

// Subscribe implements redis.UniversalClient.
func (s subscriber) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return s.subscriptions.Subscribe(ctx, channels...)
}

// run runs a Server until there has been nothing to do for a while, the session is over for another reason, or ctx ends. It
// returns the reason, or nil.
func (s *session) run(ctx context.Context) error {
	subscriptions := s.c.w.options.Connect()
	server := asynq.NewServerFromRedisClient(subscriber{s.c.w.jobs.Redis(), subscriptions}, asynq.Config{
		Queues:                   map[string]int{s.c.queue: 1},
		Concurrency:              1,
		TaskCheckInterval:        taskCheckInterval,
		DelayedTaskCheckInterval: delayedTaskCheckInterval,
		ShutdownTimeout:          abortTimeout,
		RetryDelayFunc:           s.c.retryDelay,
		IsFailure: func(err error) bool {
			return !errors.Is(err, asynq.ErrLeaseExpired) && !errors.Is(err, errSnoozed) && !errors.Is(err, errReleased)
		},
		Logger:   telemetry.NewAsynqLogger(s.log),
		LogLevel: asynqLogLevel(s.log),
	})
	if err := server.Start(s); err != nil { // only when it was started before
		s.log.Error("Could not start an asynq Server", "error", err)
		_ = subscriptions.Close()
		return err
	}
	s.log.Debug("Consuming", "queue", s.c.queue)
	reason := s.watch(ctx)
	s.stop(reason)
	s.recording.Wait()
	if !s.shutDown(server, subscriptions) && !errors.Is(reason, errLeaseLost) {
		reason = errRedisHangs
	}
	s.release()
	return reason
}

// watch keeps the lease. It returns when nothing was to be done for a while, or another worker should have the queue (nil),
// when ctx ends, or with errLeaseLost. Nothing in it may take long: the lease must not be believed in for longer than Redis
// keeps it.
func (s *session) watch(ctx context.Context) error {
	linger, reserve := time.NewTimer(lingerTime), time.NewTimer(reserveTime)
	defer linger.Stop()
	defer reserve.Stop()
	var renew, expired <-chan time.Time // never without a lease
	var expiry *time.Timer
	if s.lease != nil {
		ticker := time.NewTicker(renewInterval)
		defer ticker.Stop()
		expiry = time.NewTimer(time.Until(s.lease.Until()))
		defer expiry.Stop()
		renew, expired = ticker.C, expiry.C
	}
	for {
		select {
		case <-ctx.Done():
			return errShutdown
		case <-s.over:
			return nil
		case <-reserve.C:
			s.unreserve()
		case <-s.changed:
			linger.Reset(lingerTime)
		case <-linger.C:
			if !s.busy() {
				return nil
			}
		case <-expired:
			s.log.Warn("Lost the lease", "error", errLeaseLost)
			return errLeaseLost
		case <-renew:
			if err := s.renew(ctx); err != nil {
				s.log.Warn("Lost the lease", "error", errLeaseLost)
				return errLeaseLost
			}
			expiry.Reset(time.Until(s.lease.Until()))
		}
	}
}

// renew makes the lease last longer. It returns an error when the lease is lost for certain.
func (s *session) renew(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, s.lease.Until())
	defer cancel()
	err := s.lease.Renew(ctx)
	if errors.Is(err, jobs.ErrLeaseLost) {
		return err
	}
	if err != nil && ctx.Err() == nil {
		s.log.Debug("Could not renew the lease", "error", err)
	}
	return nil
}

// busy reports whether a handler works.
func (s *session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running) > 0
}

// stopped reports whether attempts were asked to stop.
func (s *session) stopped() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// unreserve frees the place that is kept for the first handler.
func (s *session) unreserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved != nil {
		s.reserved()
		s.reserved = nil
	}
}

// stop asks what works to stop, and returns when it has. After a lost lease there is no time to do so by itself.
func (s *session) stop(reason error) {
	s.unreserve()
	s.mu.Lock()
	close(s.stopping)
	running := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	drain := s.c.w.options.DrainTimeout
	if errors.Is(reason, errLeaseLost) {
		drain = 0
	}
	for _, over := range running {
		if !within(drain, over) {
			s.abandon(reason)
			if !within(abandonTimeout, over) {
				s.log.Error("The processor does not return although its context has ended")
			}
		}
	}
}

// shutDown shuts the Server down, and reports whether it has ended in time. One that has not ends when its subscription is closed, and the commands that it
// waits for have ended; the worker waits for that.
func (s *session) shutDown(server *asynq.Server, subscriptions redis.UniversalClient) (inTime bool) {
	ended := make(chan struct{})
	s.c.w.servers.Go(func() {
		defer close(ended)
		server.Shutdown()
	})
	inTime = within(shutdownTimeout, ended)
	_ = subscriptions.Close() // a connection that is of no more use
	return inTime
}

// within reports whether done is closed before the time is over.
func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// release lets the handlers go that waited for their task to be pushed back.
func (s *session) release() {
	close(s.released)
	s.abandon(errShutdown)
	if !s.busy() { // otherwise one does not return
		s.handlers.Wait()
	}
}

// ProcessTask implements asynq.Handler.
func (s *session) ProcessTask(ctx context.Context, task *asynq.Task) error {
	s.handlers.Add(1)
	defer s.handlers.Done()
	id, _ := asynq.GetTaskID(ctx)
	place, ok := s.begin(id)
	if !ok {
		s.awaitRelease(ctx)
		return errReleased
	}
	err := newAttempt(s, task, id, place).do(ctx)
	s.end(id, errors.Is(err, errReleased))
	place()
	if errors.Is(err, errReleased) {
		s.awaitRelease(ctx)
	}
	return err
}

// begin returns a place for a handler, which must be freed, unless there is none or the session stops.
func (s *session) begin(id string) (place func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped() { // asynq has taken it out of the queue a moment too late
		return nil, false
	}
	place, s.reserved = s.reserved, nil
	if place == nil {
		if !s.c.w.slots.TryAcquire(1) {
			signal(s.over) // another worker may have a place
			return nil, false
		}
		place = s.c.w.place()
	}
	s.running[id] = make(chan struct{})
	signal(s.changed)
	return place, true
}

// end notes that an attempt is over. Unless its task is released, asynq is about to record how it has ended, which it must have
// before the Server is shut down: it would push the task back otherwise.
func (s *session) end(id string, released bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if released {
		signal(s.over)
	} else {
		s.recording.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), recordedTimeout)
			defer cancel()
			s.awaitRecorded(ctx, id)
			if s.c.unit == unitRun && !s.stopped() {
				s.c.trim(ctx)
			}
		})
	}
	close(s.running[id])
	delete(s.running, id)
	signal(s.changed)
}

// awaitRecorded waits until asynq has recorded how a task has ended.
func (s *session) awaitRecorded(ctx context.Context, id string) {
	for ctx.Err() == nil {
		if active, err := s.c.w.jobs.IsActive(ctx, s.c.queue, id); err == nil && !active {
			return
		}
		pause(ctx, recordedPoll)
	}
}

// awaitRelease waits until asynq has pushed the task back to the queue, or is done with it because its own lease of the
// task expired or the task was cancelled.
func (s *session) awaitRelease(ctx context.Context) {
	select {
	case <-s.released:
	case <-ctx.Done():
	}
}

// pause waits until the time is over or ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// asynqLogLevel spares asynq the work of formatting what would not be logged.
func asynqLogLevel(log *slog.Logger) asynq.LogLevel {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return asynq.InfoLevel
	}
	return asynq.ErrorLevel
}
