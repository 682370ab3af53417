// The mover: it takes entries from their lists in Redis to MongoDB.

package history

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// batch is how many entries are moved at a time.
	batch = 100
	// gatherTime is how long the mover waits for more after a run has ended. So many short runs are stored together.
	gatherTime = 100 * time.Millisecond
	// lookInterval is how often the mover looks for entries without a signal: those of actions, and of dead workers.
	lookInterval = 5 * time.Second
	// redisTimeout bounds each command to Redis.
	redisTimeout = 5 * time.Second
	// The wait after a failure doubles from firstWait up to lastWait. Without a right it is rightWait: a person must grant it.
	firstWait = time.Second
	lastWait  = 15 * time.Second
	rightWait = time.Minute
	// tendInterval is how often the mover tends the collection, and tendWait when it tries again if MongoDB is away.
	tendInterval = time.Hour
	tendWait     = time.Minute
)

// Mover takes entries from Redis to a store. Any number of movers do that at once, in as many processes. Make one with NewMover.
type Mover struct {
	jobs  *jobs.Jobs
	store *Store
	log   *slog.Logger

	mu sync.Mutex
	// lacking has the rights that the log says the user lacks.
	lacking map[string]bool
}

// NewMover returns a mover.
func NewMover(j *jobs.Jobs, store *Store, log *slog.Logger) *Mover {
	return &Mover{jobs: j, store: store, log: log, lacking: make(map[string]bool)}
}

// Run moves entries until ctx ends. A value from ended says that a run has just ended. While Redis or MongoDB is away Run waits, and
// the entries stay in Redis.
func (m *Mover) Run(ctx context.Context, ended <-chan struct{}) {
	var tending sync.WaitGroup
	tending.Go(func() { m.tend(ctx) })
	defer tending.Wait()
	failures := outage{m: m}
	for {
		err := m.move(ctx)
		if ctx.Err() != nil {
			return
		}
		wait, signals := lookInterval, ended
		if err != nil {
			wait, signals = failures.failed(err), nil
		} else {
			failures.over()
		}
		select {
		case <-signals:
			pause(ctx, gatherTime)
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// outage is what the log says of failures that follow each other.
type outage struct {
	m     *Mover
	wait  time.Duration // the last one; 0 while all is well
	since time.Time
}

// failed logs a failure, and returns how long to wait.
func (o *outage) failed(err error) time.Duration {
	if o.wait == 0 {
		o.since = time.Now()
	}
	if o.m.lacksRight(err, "the history gets no new entries; they wait in Redis") {
		o.wait = rightWait
		return o.wait
	}
	level := slog.LevelDebug
	if o.wait == 0 {
		level = slog.LevelWarn
	}
	o.wait = min(max(2*o.wait, firstWait), lastWait)
	o.m.log.Log(context.Background(), level, "Could not store entries of the history, trying again; they wait in Redis", "error", err, "retryIn", o.wait.String())
	return o.wait
}

func (o *outage) over() {
	if o.wait != 0 {
		o.m.mu.Lock()
		clear(o.m.lacking)
		o.m.mu.Unlock()
		o.m.log.Info("The history gets its entries again", "after", time.Since(o.since).Round(time.Second).String())
	}
	o.wait = 0
}

// lacksRight reports whether the error is about a right that the user lacks. It logs each right once.
func (m *Mover) lacksRight(err error, consequence string) bool {
	var right *RightError
	if !errors.As(err, &right) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lacking[right.Action] {
		m.lacking[right.Action] = true
		m.log.Warn("The user of MongoDB lacks a right for the history", "right", right.Action, "collection", m.store.Name(),
			"consequence", consequence, "error", err)
	}
	return true
}

// move moves all entries that are there.
func (m *Mover) move(ctx context.Context) error {
	var errs []error
	for _, def := range m.jobs.Registry().All() {
		for more := true; more && ctx.Err() == nil; {
			n, err := m.moveSome(ctx, def)
			if err != nil {
				errs = append(errs, err)
			}
			more = err == nil && n == batch
		}
	}
	return errors.Join(errs...)
}

// moveSome moves the oldest entries of a job type, and returns how many they were.
func (m *Mover) moveSome(ctx context.Context, def tasks.Definition) (int, error) {
	reading, cancel := context.WithTimeout(ctx, redisTimeout)
	listed, err := m.jobs.Entries(reading, def, batch)
	cancel()
	if err != nil || len(listed) == 0 {
		return 0, err
	}
	entries := make([]jobs.Entry, 0, len(listed))
	for _, l := range listed {
		if l.Err != nil {
			m.log.Error("Dropped what is no entry of the history", "queue", def.Name, "error", l.Err)
			continue
		}
		entries = append(entries, l.Entry)
	}
	lost, err := m.store.Put(ctx, entries)
	if err != nil {
		return 0, err
	}
	for _, l := range lost {
		m.log.Error("Dropped an entry of the history, because MongoDB does not take it", "queue", def.Name, "id", l.ID, "error", l.Err)
	}
	removing, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := m.jobs.RemoveEntries(removing, def, listed); err != nil {
		return 0, err // they are stored once more, which changes nothing
	}
	m.log.Debug("Stored entries of the history", "queue", def.Name, "entries", len(entries)-len(lost))
	return len(listed), nil
}

// tend keeps the collection in order: its indexes, and what expires. Workers with another Keep can have stored entries while this one
// started, so it looks at that twice.
func (m *Mover) tend(ctx context.Context) {
	tended := tending{Mover: m, rekeep: 2}
	for {
		wait := tendInterval
		if err := tended.once(ctx); err != nil && ctx.Err() == nil {
			level := slog.LevelWarn
			if passes(err) { // which the client of MongoDB logs
				level, wait = slog.LevelDebug, tendWait
			}
			m.log.Log(ctx, level, "Could not tend the history, trying again", "collection", m.store.Name(), "error", err, "retryIn", wait.String())
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// tending is what is still to do for the collection.
type tending struct {
	*Mover
	indexed bool
	// expires is true once the server itself deletes what has expired.
	expires, cannotExpire bool
	// rekeep is how often to look for entries that were stored with another Keep.
	rekeep int
}

// once does what is to be done. Its errors are not about rights.
func (t *tending) once(ctx context.Context) error {
	if !t.indexed {
		if err := t.store.EnsureIndexes(ctx); err != nil && !t.lacksRight(err, "lists of the history are slow") {
			return err
		} else if err == nil {
			t.indexed = true
		}
	}
	if !t.expires && !t.cannotExpire {
		switch err := t.store.EnsureExpiry(ctx); {
		case err == nil:
			t.expires = true
		case t.lacksRight(err, "the workers delete what has expired, once an hour"):
		case passes(err):
			return err
		default:
			t.cannotExpire = true
			t.log.Info("The server does not delete what has expired of the history: the workers do, once an hour", "collection", t.store.Name(), "reason", err)
		}
	}
	if t.rekeep > 0 {
		n, err := t.store.Rekeep(ctx)
		if err != nil && !t.lacksRight(err, "a changed HISTORY_KEEP does not hold for older entries") {
			return err
		}
		if n > 0 {
			t.log.Info("Older entries of the history expire by the present setting", "entries", n, "keep", t.store.Keep.String())
		}
		t.rekeep--
	}
	if !t.expires {
		n, err := t.store.Expire(ctx, time.Now())
		if err != nil && !t.lacksRight(err, "the history keeps what has expired") {
			return err
		}
		if n > 0 {
			t.log.Info("Deleted entries of the history that have expired", "entries", n)
		}
	}
	return nil
}
