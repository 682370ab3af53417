package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/telemetry"
)

const (
	// recordTimeout bounds one try at writing to Redis what a run has come to, and recordPause is between two.
	recordTimeout = 3 * time.Second
	recordPause   = 200 * time.Millisecond
	// notableInsistence is after how long without success the log speaks of it.
	notableInsistence = 10 * time.Second
	// abandonTimeout is how long a processor may take to return after its context has ended.
	abandonTimeout = time.Second
	// abortTimeout is how long asynq waits, when its Server is shut down, for a task before it pushes it back to the
	// queue. The task's handler has stopped working before, and waits for just that.
	abortTimeout = 100 * time.Millisecond
	// delayedTaskCheckInterval is how often retries are looked for; asynq's default of 5 s would delay each by that.
	delayedTaskCheckInterval = 250 * time.Millisecond
	// orphanGrace is how long asynq leaves a task alone whose worker's lease of it has expired (its clocks may differ), and
	// a second for rounding. It looks for such tasks when a Server starts and every minute after that.
	orphanGrace = 31 * time.Second
	// orphanInterval is how often we look, so that a Server can be started in time.
	orphanInterval = 2 * time.Second
	// settleTimeout bounds the wait for asynq to record how a task has ended.
	settleTimeout = 3 * time.Second
	settlePoll    = 5 * time.Millisecond
)

// session is the life of one asynq Server and the asynq.Handler of it. What a task is, is up to attempt.
//
// A task is asked to stop (stopping is closed), and when it does not its context ends. Then its handler does not return
// but waits for asynq to push the task back to the queue (released), because for asynq every return is the end of an
// attempt.
type session struct {
	w       *Worker
	log     *slog.Logger
	attempt func(ctx context.Context, s *session, task *asynq.Task) error

	busy     atomic.Bool
	ended    chan endedTask // tasks whose end asynq is about to record
	yield    chan struct{}  // has a value when the session had better end
	stopping chan struct{}
	released chan struct{}
	working  context.Context // ends when tasks are abandoned
	abandon  context.CancelCauseFunc

	mu       sync.Mutex
	running  map[string]chan struct{}           // by task ID: closed when the attempt is over
	cancels  map[string]context.CancelCauseFunc // by task ID, of those that can be cancelled
	handlers sync.WaitGroup
}

type endedTask struct{ queue, id string }

// endedBuffer is more tasks than can end while the session looks at one that did.
const endedBuffer = 64

func newSession(w *Worker, log *slog.Logger, attempt func(context.Context, *session, *asynq.Task) error) *session {
	s := &session{
		w: w, log: log, attempt: attempt,
		ended: make(chan endedTask, endedBuffer), yield: make(chan struct{}, 1),
		stopping: make(chan struct{}), released: make(chan struct{}),
		running: make(map[string]chan struct{}), cancels: make(map[string]context.CancelCauseFunc),
	}
	s.working, s.abandon = context.WithCancelCause(context.Background())
	return s
}

// serve runs a Server until wait returns with the reason for which tasks are stopped then. Meanwhile, and until it is
// told that they have stopped, keep does what is to be done beside them. One task is worked on at a time.
func (s *session) serve(config asynq.Config, wait func() error, keep func(drained <-chan struct{})) error {
	config.Concurrency = 1
	config.DelayedTaskCheckInterval = delayedTaskCheckInterval
	config.ShutdownTimeout = abortTimeout
	config.IsFailure = func(err error) bool { return !errors.Is(err, asynq.ErrLeaseExpired) && !errors.Is(err, errPostponed) }
	config.Logger = telemetry.NewAsynqLogger(s.log)
	config.LogLevel = asynqLogLevel(s.log)
	server := asynq.NewServerFromRedisClient(s.w.jobs.Redis(), config)
	if err := server.Start(s); err != nil { // only when it was started before
		return err
	}
	s.log.Debug("Consuming")
	var kept, drained = make(chan struct{}), make(chan struct{})
	s.w.keepers.Go(func() {
		defer close(kept)
		keep(drained)
	})
	s.stop(wait())
	close(drained)
	within(settleTimeout, kept)
	server.Shutdown()
	s.release()
	return nil
}

// stop asks what tasks to stop, and returns when they have. After a lost lease they have no time to do so by themselves.
func (s *session) stop(reason error) {
	s.mu.Lock()
	close(s.stopping)
	running := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	patience := s.w.options.DrainTimeout
	if errors.Is(reason, errLeaseLost) {
		patience = 0
	}
	for _, over := range running {
		if !within(patience, over) {
			s.abandon(reason)
			if !within(abandonTimeout, over) {
				s.log.Error("The processor does not return although its context has ended")
			}
		}
	}
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

// release lets the handlers go that waited for their task to be given back.
func (s *session) release() {
	close(s.released)
	s.abandon(errShutdown)
	s.mu.Lock()
	stuck := len(s.running) > 0
	s.mu.Unlock()
	if !stuck {
		s.handlers.Wait()
	}
}

// ProcessTask implements asynq.Handler.
func (s *session) ProcessTask(ctx context.Context, task *asynq.Task) error {
	s.handlers.Add(1)
	defer s.handlers.Done()
	s.busy.Store(true)
	defer s.busy.Store(false)
	id, _ := asynq.GetTaskID(ctx)
	queue, _ := asynq.GetQueueName(ctx)
	over := make(chan struct{})
	s.mu.Lock()
	if closed(s.stopping) { // asynq has taken it out of the queue a moment too late
		s.mu.Unlock()
		s.awaitRelease(ctx)
		return errGivenBack
	}
	s.running[id] = over
	s.mu.Unlock()

	err := s.attempt(ctx, s, task)

	givenBack := errors.Is(err, errGivenBack)
	if !givenBack {
		s.ended <- endedTask{queue, id}
	}
	s.mu.Lock()
	delete(s.running, id)
	s.mu.Unlock()
	close(over)
	if givenBack {
		s.end()
		s.awaitRelease(ctx)
	}
	return err
}

// end asks whoever waits to end the session.
func (s *session) end() {
	select {
	case s.yield <- struct{}{}:
	default: // it has been asked
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

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// errGivenBack says that the task is to be pushed back to the queue.
var errGivenBack = errors.New("given back")

// context is that of an attempt: it ends with the task's, and when tasks are abandoned. The caller must call end.
func (s *session) context(task context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(task)
	stop := context.AfterFunc(s.working, func() { cancel(context.Cause(s.working)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// cancellable is a context for the task's work that also ends, with errCancelled, when somebody cancels the task. The caller
// must call end.
func (s *session) cancellable(ctx context.Context, id string) (working context.Context, end func()) {
	working, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancels[id] = cancel
	return working, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cancels, id)
		cancel(nil)
	}
}

// cancelWanted ends the work on each task of which wanted says that somebody has cancelled it.
func (s *session) cancelWanted(wanted func(id string) bool) {
	s.mu.Lock()
	cancels := maps.Clone(s.cancels)
	s.mu.Unlock()
	for id, cancel := range cancels {
		if wanted(id) {
			cancel(errCancelled)
		}
	}
}

// settle waits until asynq has recorded how a task has ended. It must have before its Server is shut down, which would
// push the task back to the queue otherwise.
func (s *session) settle(task endedTask) {
	for deadline := time.Now().Add(settleTimeout); time.Now().Before(deadline); time.Sleep(settlePoll) {
		if active, err := s.w.jobs.IsActive(task.queue, task.id); err == nil && !active {
			return
		}
	}
}

// settleRest settles what ended when nobody looked any more.
func (s *session) settleRest() {
	for {
		select {
		case task := <-s.ended:
			s.settle(task)
		default:
			return
		}
	}
}

// insist calls f until it succeeds, the run is superseded or ctx ends: a Redis that is away is waited for. The log says so
// when that takes long, once.
func (s *session) insist(ctx context.Context, log *slog.Logger, f func(context.Context) error) error {
	begun, warned := time.Now(), false
	for {
		try, cancel := context.WithTimeout(ctx, recordTimeout)
		err := f(try)
		cancel()
		if err == nil || errors.Is(err, jobs.ErrSuperseded) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !warned && time.Since(begun) > notableInsistence {
			warned = true
			log.Warn("Redis does not serve the run's state, still trying", "error", err)
		} else {
			log.Debug("Redis did not serve the run's state, trying again", "error", err)
		}
		pause(ctx, recordPause, nil)
	}
}

// asynqLogLevel spares asynq the work of formatting what would not be logged.
func asynqLogLevel(log *slog.Logger) asynq.LogLevel {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return asynq.InfoLevel
	}
	return asynq.ErrorLevel
}
