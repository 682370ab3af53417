// A session holds an asynq Server, and the lease, while there is work.

package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// lingerTime is how long a session with nothing to do stays, so that a burst of triggers starts one Server.
	lingerTime = time.Second
	// reserveTime is how long a session reserves a handler's place for a task that does not come.
	reserveTime = 250 * time.Millisecond
	// taskCheckInterval is how often an asynq Server with nothing to do looks at its queue, on average.
	taskCheckInterval = 5 * time.Millisecond
	// delayedRunInterval and delayedRangeInterval are how often a Server looks for retries. asynq's default of 5 s would delay each by up
	// to that. Nobody waits for a single range, and the looks are a tenth of what a long run costs Redis.
	delayedRunInterval   = 250 * time.Millisecond
	delayedRangeInterval = time.Second
	// subscribeDelay holds back asynq's subscription, which we do not need, until the Server has taken its first task.
	subscribeDelay = 50 * time.Millisecond
	// renewInterval is how often a lease is renewed.
	renewInterval = jobs.LeaseTTL / 4
	// abandonTimeout is how long a handler may take to return after its context has ended.
	abandonTimeout = time.Second
	// abortTimeout is how long a Server that shuts down waits for a task before it pushes the task back to the queue. It is
	// short: the handler has stopped before, and waits for that push.
	abortTimeout = time.Millisecond
	// shutdownTimeout bounds the wait for a Server to shut down. With a Redis that hangs it would take longer.
	shutdownTimeout = 3 * time.Second
	// recordedTimeout bounds the wait until asynq has recorded how a task ended, and recordedPoll is the time between two looks.
	recordedTimeout = 2 * time.Second
	recordedPoll    = 5 * time.Millisecond
)

// The reasons for stopping attempts at no cost.
var (
	errShutdown  = errors.New("the worker shuts down")
	errLeaseLost = errors.New("the worker lost the lease of the job type")
)

// errRedisHangs is the reason of a session whose Server did not shut down in time.
var errRedisHangs = errors.New("the asynq Server did not shut down in time")

// errReleased is the error of an attempt whose task goes back to its queue.
var errReleased = errors.New("released")

// session is the life of one asynq Server, and the Server's asynq.Handler. It does not know whether its tasks are runs or
// ranges.
//
// To stop, a session closes stopping, which asks the attempts to stop. It ends the context of those that do not. For asynq every
// return of a handler ends the task. So ProcessTask does not return for a released task: it waits until the Server's shutdown
// has pushed the task back to the queue.
type session struct {
	c     *consumer
	lease *jobs.Lease // nil if the queue needs none
	log   *slog.Logger

	changed  chan struct{} // has a value after an attempt has begun or ended
	over     chan struct{} // has a value when another worker should have the queue
	stopping chan struct{} // closed to ask the attempts to stop
	released chan struct{} // closed when asynq has pushed the released tasks back
	turn     chan struct{} // of a session for ranges: has a value while another range may be taken
	working  context.Context
	abandon  context.CancelCauseFunc // ends working, and with it the context of each attempt

	mu        sync.Mutex
	reserved  func()                   // frees the place that is reserved for the first handler; nil once that has it
	running   map[string]chan struct{} // by task ID; closed when the attempt has ended
	handlers  sync.WaitGroup           // calls of ProcessTask
	recording sync.WaitGroup           // waits for asynq to record how tasks ended
}

func newSession(c *consumer, lease *jobs.Lease, reserved func()) *session {
	s := &session{
		c: c, lease: lease, log: c.log, reserved: reserved,
		changed: make(chan struct{}, 1), over: make(chan struct{}, 1),
		stopping: make(chan struct{}), released: make(chan struct{}), running: make(map[string]chan struct{}),
	}
	if c.unit == unitRange {
		s.turn = make(chan struct{}, 1)
		s.turn <- struct{}{}
	}
	s.working, s.abandon = context.WithCancelCause(context.Background())
	return s
}

// serverClient is the client of a session's Server. Its subscription has a connection of its own, which can be cut: asynq waits
// without end for the answer to a SUBSCRIBE, and panics if the client of its subscription is closed. Its first heartbeat takes one
// round trip, see ZAdd.
//
// asynq would subscribe to its channel of cancellations. What it hears there ends a task whose handler still works, and counts
// as a failed attempt. And a channel has no database: the runs of a tick have the same ID in all deployments of a Redis. So
// asynq hears the announcements instead, none of which is a task's ID. jobs.Cancel needs no channel.
type serverClient struct {
	redis.UniversalClient
	own     redis.UniversalClient
	channel string
	// turn has a value while the Server may take a task, and stopping is closed when it never may again. With a nil turn it always may.
	turn     chan struct{}
	stopping <-chan struct{}

	mu    sync.Mutex
	conns []net.Conn
	last  *redis.PubSub
	beats []beat
}

// beat is a ZADD of a Server's heartbeat.
type beat struct {
	key     string
	members []redis.Z
}

// ZAdd implements redis.UniversalClient. A Server hands out no task before its first heartbeat is written. That takes a ZADD, one
// more, and a script: three round trips, where one will do. asynq calls ZAdd for nothing else.
func (s *serverClient) ZAdd(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats = append(s.beats, beat{key, members})
	return redis.NewIntCmd(ctx) // without an error
}

// EvalSha implements redis.UniversalClient.
func (s *serverClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return s.inTurn(ctx, keys, func() *redis.Cmd { return s.evalSha(ctx, sha, keys, args...) })
}

// Eval implements redis.UniversalClient. asynq calls it for a script that Redis does not know yet.
func (s *serverClient) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return s.inTurn(ctx, keys, func() *redis.Cmd { return s.UniversalClient.Eval(ctx, script, keys, args...) })
}

// inTurn calls run. If that takes a task from a queue, it waits for the turn, which then belongs to the task. After a wait it runs
// nothing: the lease of a task that asynq has asked for could be over. asynq asks again.
func (s *serverClient) inTurn(ctx context.Context, keys []string, run func() *redis.Cmd) *redis.Cmd {
	if s.turn == nil || !takesTask(keys) {
		return run()
	}
	select {
	case <-s.turn:
		command := run()
		if command.Err() != nil { // there is no task
			s.turn <- struct{}{}
		}
		return command
	default:
	}
	select {
	case <-s.turn:
		s.turn <- struct{}{}
	case <-s.stopping:
	}
	command := redis.NewCmd(ctx)
	command.SetErr(redis.Nil) // no task
	return command
}

// takesTask reports whether the keys are those of asynq's script that takes a task: pending, paused, active and lease of a queue. No other
// script of a Server looks whether the queue is paused.
func takesTask(keys []string) bool { return len(keys) == 4 && strings.HasSuffix(keys[1], ":paused") }

// evalSha sends the ZADDs before it along with the script. What becomes of them does not matter to asynq: the next heartbeat writes
// the same.
func (s *serverClient) evalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	s.mu.Lock()
	beats := s.beats
	s.beats = nil
	s.mu.Unlock()
	if len(beats) == 0 {
		return s.UniversalClient.EvalSha(ctx, sha, keys, args...)
	}
	pipeline := s.Pipeline()
	for _, b := range beats {
		pipeline.ZAdd(ctx, b.key, b.members...)
	}
	script := pipeline.EvalSha(ctx, sha, keys, args...)
	_, _ = pipeline.Exec(ctx) // each command has its error
	return script
}

func newServerClient(rdb redis.UniversalClient, connect func(...redis.Hook) redis.UniversalClient, channel string) *serverClient {
	s := &serverClient{UniversalClient: rdb, channel: channel}
	s.own = connect(s)
	return s
}

// Subscribe implements redis.UniversalClient. asynq subscribes again only when it could not before, and does not close the failed
// subscription.
func (s *serverClient) Subscribe(ctx context.Context, _ ...string) *redis.PubSub {
	s.mu.Lock()
	failed := s.last
	s.mu.Unlock()
	if failed != nil {
		_ = failed.Close() // its connection is of no use
	}
	sleep(ctx, subscribeDelay)
	subscription := s.own.Subscribe(ctx, s.channel)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = subscription
	return subscription
}

// DialHook implements redis.Hook.
func (s *serverClient) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns = append(s.conns, conn)
		}
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (*serverClient) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (*serverClient) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// cut closes the connections of the subscription.
func (s *serverClient) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close() // which may be closed already
	}
}

// run runs a Server until watch returns, and shuts it down. It returns watch's reason, or errRedisHangs.
func (s *session) run(ctx context.Context) error {
	client := newServerClient(s.c.w.jobs.Redis(), s.c.w.options.Connect, s.c.w.jobs.Channel())
	concurrency, delayed := s.c.handlers, delayedRunInterval
	if s.turn != nil { // the next range begins while the last one is finished
		client.turn, client.stopping = s.turn, s.stopping
		concurrency, delayed = concurrency+1, delayedRangeInterval
	}
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Queues:                   map[string]int{s.c.queue: 1},
		Concurrency:              concurrency,
		TaskCheckInterval:        taskCheckInterval,
		DelayedTaskCheckInterval: delayed,
		ShutdownTimeout:          abortTimeout,
		RetryDelayFunc:           s.c.retryDelay,
		IsFailure: func(err error) bool {
			return !errors.Is(err, asynq.ErrLeaseExpired) && !errors.Is(err, errSnoozed) && !errors.Is(err, errReleased)
		},
		Logger:   telemetry.NewAsynqLogger(s.log),
		LogLevel: asynqLogLevel(s.log),
	})
	if err := server.Start(s); err != nil { // which only fails for a Server that was started before
		s.log.Error("Could not start an asynq Server", "error", err)
		_ = client.own.Close() // it has no connection yet
		return err
	}
	s.log.Debug("Consuming", "queue", s.c.queue)
	reason := s.watch(ctx)
	s.stop(reason)
	s.recording.Wait()
	if !s.shutDown(server, client) && !errors.Is(reason, errLeaseLost) {
		reason = errRedisHangs
	}
	s.release()
	return reason
}

// watch renews the lease until the session must stop. It returns nil after the linger time, or if another worker should have the
// queue, otherwise errShutdown or errLeaseLost. Nothing in it may take long: it must notice in time that the lease is lost.
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

// renew renews the lease. It returns an error if the lease is lost for certain.
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

// busy reports whether there is an attempt.
func (s *session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running) > 0
}

// stopped reports whether the attempts were asked to stop.
func (s *session) stopped() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// unreserve frees the place that is reserved for the first handler.
func (s *session) unreserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved != nil {
		s.reserved()
		s.reserved = nil
	}
}

// stop asks the attempts to stop, and returns when they have. After a lost lease there is no time to ask: it abandons them.
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
	for _, ended := range running {
		if !within(drain, ended) {
			s.abandon(reason)
			if !within(abandonTimeout, ended) {
				s.log.Error("The processor does not return although its context has ended")
			}
		}
	}
}

// shutDown shuts the Server down, and reports whether that was done in time. If it was not, shutDown cuts the subscription: then
// the Server is done once its last commands have ended. Worker.Run waits for that.
func (s *session) shutDown(server *asynq.Server, client *serverClient) (inTime bool) {
	done := make(chan struct{})
	s.c.w.servers.Go(func() {
		server.Shutdown()
		_ = client.own.Close() // the connection is of no more use
		close(done)
	})
	if inTime = within(shutdownTimeout, done); !inTime {
		client.cut()
	}
	return inTime
}

// within waits until done is closed, and reports whether it was closed in time.
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

// release lets ProcessTask return for the tasks that were pushed back.
func (s *session) release() {
	close(s.released)
	s.abandon(errShutdown)
	if !s.busy() { // otherwise a handler does not return, even though its context has ended
		s.handlers.Wait()
	}
}

// ProcessTask implements asynq.Handler.
func (s *session) ProcessTask(ctx context.Context, task *asynq.Task) error {
	s.handlers.Add(1)
	defer s.handlers.Done()
	id, _ := asynq.GetTaskID(ctx)
	place := s.place(ctx)
	if !s.begin(id, place) {
		s.awaitRelease(ctx)
		return errReleased
	}
	free := sync.OnceFunc(func() {
		place()
		if s.turn != nil {
			s.turn <- struct{}{}
		}
	})
	err := newAttempt(s, task, id, free).do(ctx)
	s.end(id, errors.Is(err, errReleased))
	free()
	// A session with several handlers goes on. There asynq moves a released task to its retries, as due at once.
	if errors.Is(err, errReleased) && (s.c.handlers == 1 || s.stopped()) {
		s.awaitRelease(ctx)
	}
	return err
}

// place returns a function that frees a place among the worker's handlers, or nil if there is none. A session with several
// handlers waits for one: the others must not stop because one has none.
func (s *session) place(ctx context.Context) (free func()) {
	s.mu.Lock()
	reserved := s.reserved
	s.reserved = nil
	s.mu.Unlock()
	switch {
	case reserved != nil:
		return reserved
	case s.c.handlers > 1:
		ctx, end := s.untilStopped(ctx)
		defer end()
		if s.c.w.places.Acquire(ctx, 1) != nil {
			return nil
		}
	case !s.c.w.places.TryAcquire(1):
		return nil
	}
	return s.c.w.place()
}

// untilStopped returns a context that also ends when the attempts are asked to stop. The caller must call end.
func (s *session) untilStopped(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel()
		waiting.Wait()
	}
}

// begin begins an attempt that has a place. It returns false, and frees the place, if the session stops. An attempt without a
// place does not begin: another worker may have one.
func (s *session) begin(id string, place func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped(): // asynq has dequeued it a moment too late
		if place != nil {
			place()
		}
		return false
	case place == nil:
		signal(s.over)
		return false
	}
	s.running[id] = make(chan struct{})
	s.c.w.doing.Store(id, nil)
	signal(s.changed)
	return true
}

// end ends an attempt. Unless the task is released, asynq is about to record how it ended. The Server must not shut down before
// that: it would push the task back.
func (s *session) end(id string, released bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !released:
		s.recording.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), recordedTimeout)
			defer cancel()
			s.awaitRecorded(ctx, id)
			if s.c.unit == unitRun && !s.stopped() {
				s.c.trim(ctx)
			}
		})
	case s.c.handlers == 1:
		signal(s.over)
	}
	close(s.running[id])
	delete(s.running, id)
	s.c.w.doing.Delete(id)
	signal(s.changed)
}

// awaitRecorded waits until asynq has recorded how a task ended.
func (s *session) awaitRecorded(ctx context.Context, id string) {
	for ctx.Err() == nil {
		if active, err := s.c.w.jobs.IsActive(ctx, s.c.queue, id); err == nil && !active {
			return
		}
		sleep(ctx, recordedPoll)
	}
}

// awaitRelease waits until asynq has pushed the task back to the queue. It also returns when asynq has ended the task's context:
// its lease of the task expired.
func (s *session) awaitRelease(ctx context.Context) {
	select {
	case <-s.released:
	case <-ctx.Done():
	}
}

// sleep waits until the time is over or ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// asynqLogLevel returns the level below which asynq need not format lines, because they would not be logged.
func asynqLogLevel(log *slog.Logger) asynq.LogLevel {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return asynq.InfoLevel
	}
	return asynq.ErrorLevel
}
