package syncrun_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var reference = time.Date(2026, 3, 1, 12, 20, 0, 0, time.UTC)

const freshness = 20 * time.Minute

var incremental = syncrun.Selection{Reference: reference, Freshness: freshness}

// user is a record of the store in memory.
type user struct {
	number  int
	stamp   time.Time // zero for none
	stamped int       // how often an update applied to it
	fails   error     // what its update fails with
	deleted bool
	set     map[string]any // by the last update
}

func (u *user) key() []byte { return binary.BigEndian.AppendUint64(nil, uint64(u.number)) }

func (u *user) due(sel syncrun.Selection) bool {
	return !u.deleted && (sel.Full || u.stamp.IsZero() || !u.stamp.After(sel.Reference.Add(-sel.Freshness)) ||
		u.stamp.After(sel.Latest()) || u.stamp.Equal(sel.Reference))
}

type number int

func (n number) String() string { return fmt.Sprintf("id-%d", int(n)) }

// memory is a store of users in memory. Like a database's, its cursor sees changes of the records ahead of it.
type memory struct {
	// before is called at the start of each operation, "split", "count", "scan", "next" or "stamp", which returns its error. It
	// can be nil.
	before func(ctx context.Context, operation string, records []syncrun.Record) error

	mu     sync.Mutex
	users  []*user
	reads  int            // records handed out by cursors
	calls  map[string]int // of each operation
	open   int            // cursors that are not closed
	lately time.Time      // of the last stamp
}

func newMemory(n int) *memory {
	m := &memory{calls: make(map[string]int)}
	for i := range n {
		m.users = append(m.users, &user{number: i + 1})
	}
	return m
}

func (m *memory) begin(ctx context.Context, operation string, records []syncrun.Record) error {
	m.mu.Lock()
	m.calls[operation]++
	m.mu.Unlock()
	if m.before != nil {
		if err := m.before(ctx, operation, records); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (m *memory) EndOfRange(ctx context.Context, after []byte, size int) ([]byte, error) {
	if err := m.begin(ctx, "split", nil); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var behind []*user
	for _, u := range m.users {
		if !u.deleted && bytes.Compare(u.key(), after) > 0 {
			behind = append(behind, u)
		}
	}
	if len(behind) <= size {
		return nil, nil
	}
	return behind[size-1].key(), nil
}

func (m *memory) Count(ctx context.Context, sel syncrun.Selection, within syncrun.Range) (int64, error) {
	if err := m.begin(ctx, "count", nil); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(0)
	for _, u := range m.users {
		if u.due(sel) && u.within(within) {
			n++
		}
	}
	return n, nil
}

func (u *user) within(r syncrun.Range) bool {
	return bytes.Compare(u.key(), r.After) > 0 && (r.Upto == nil || bytes.Compare(u.key(), r.Upto) <= 0)
}

func (m *memory) Scan(ctx context.Context, sel syncrun.Selection, within syncrun.Range) (syncrun.Cursor, error) {
	if err := m.begin(ctx, "scan", nil); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open++
	return &memoryCursor{store: m, sel: sel, within: within}, nil
}

func (m *memory) Stamp(ctx context.Context, updates []syncrun.Update, sel syncrun.Selection) (syncrun.Stamped, error) {
	records := make([]syncrun.Record, len(updates))
	for i, update := range updates {
		records[i] = update.Record
	}
	if err := m.begin(ctx, "stamp", records); err != nil {
		return syncrun.Stamped{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lately = time.Now()
	var stamped syncrun.Stamped
	for i, r := range records {
		u := m.users[r.State.(int)-1]
		switch {
		case u.deleted:
		case u.fails != nil:
			stamped.Failed = append(stamped.Failed, syncrun.Failure{Record: r, Err: u.fails})
		default:
			stamped.Matched++
			u.stamped++
			if set := updates[i].Set; set != nil {
				u.set = set
			}
			if u.stamp.Before(sel.Reference) || u.stamp.After(sel.Latest()) {
				u.stamp = sel.Reference
			}
		}
	}
	return stamped, nil
}

// locked calls f while the store is locked.
func (m *memory) locked(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

type memoryCursor struct {
	store  *memory
	sel    syncrun.Selection
	within syncrun.Range
	closed bool
}

func (c *memoryCursor) Read(ctx context.Context, records []syncrun.Record) (int, error) {
	for n := range records {
		record, ok, err := c.next(ctx)
		if !ok || err != nil {
			return n, err
		}
		records[n] = record
	}
	return len(records), nil
}

func (c *memoryCursor) next(ctx context.Context) (syncrun.Record, bool, error) {
	if err := c.store.begin(ctx, "next", nil); err != nil {
		return syncrun.Record{}, false, err
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if c.closed {
		return syncrun.Record{}, false, errors.New("the cursor is closed")
	}
	first := 0
	if c.within.After != nil {
		first = int(binary.BigEndian.Uint64(c.within.After))
	}
	for _, u := range c.store.users[first:] {
		if u.due(c.sel) && u.within(c.within) {
			c.within.After = u.key()
			c.store.reads++
			return syncrun.Record{
				Key: u.key(), ID: number(u.number), Name: fmt.Sprintf("user%d", u.number), State: u.number,
				Stamped: u.stamp.Equal(c.sel.Reference),
			}, true, nil
		}
	}
	return syncrun.Record{}, false, nil
}

func (c *memoryCursor) Close() {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if !c.closed {
		c.store.open--
	}
	c.closed = true
}

// saved stores the checkpoints of a run as JSON, as the product does.
type saved struct {
	mu       sync.Mutex
	all      []syncrun.Checkpoint
	progress []int
	last     []byte
	failing  error // instead of keeping
	failed   int   // how often
	check    func(syncrun.Checkpoint)
}

func (s *saved) save(ctx context.Context, c syncrun.Checkpoint, progress int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.failing != nil {
		s.failed++
		return s.failing
	}
	if s.check != nil {
		s.check(c)
	}
	s.all = append(s.all, c)
	s.progress = append(s.progress, progress)
	var err error
	s.last, err = json.Marshal(c)
	return err
}

func (s *saved) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err
}

// checkpoint returns the checkpoint that the next attempt begins with.
func (s *saved) checkpoint(t *testing.T) syncrun.Checkpoint {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var c syncrun.Checkpoint
	if s.last != nil {
		if err := json.Unmarshal(s.last, &c); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// logged collects the records of a log.
type logged struct {
	level slog.Level

	mu      sync.Mutex
	records []slog.Record
}

func (l *logged) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }
func (l *logged) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logged) WithGroup(string) slog.Handler                    { return l }
func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// lines returns "message key=value ..." for each record with the message.
func (l *logged) lines(message string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, r := range l.records {
		if r.Message != message {
			continue
		}
		var line bytes.Buffer
		line.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&line, " %s=%v", a.Key, a.Value)
			return true
		})
		lines = append(lines, line.String())
	}
	slices.Sort(lines)
	return lines
}

// testBundle is a run over a store in memory.
type testBundle struct {
	store  *memory
	saved  *saved
	log    *logged
	ranges *ranges
	run    syncrun.Run
}

func setup(t *testing.T, n int) *testBundle {
	t.Helper()
	b := &testBundle{store: newMemory(n), saved: &saved{}, log: &logged{level: slog.LevelDebug}}
	b.ranges = &ranges{ended: make(chan struct{}, 1)}
	b.run = syncrun.Run{
		Pass: syncrun.Pass{
			Noun: "user", Store: b.store, Work: syncrun.Stamping{}, Selection: incremental, BatchSize: 10, Writers: 4,
			RetryBudget: time.Minute, Save: b.saved.save, Log: slog.New(b.log),
		},
		RangeSize: syncrun.DefaultRangeSize, Ranges: b.ranges,
	}
	t.Cleanup(func() {
		b.store.locked(func() {
			if b.store.open != 0 {
				t.Errorf("%d cursors were left open", b.store.open)
			}
		})
	})
	return b
}

// do runs the run to its end.
func (b *testBundle) do(t *testing.T) syncrun.Result {
	t.Helper()
	b.run.Stop = nil // of an attempt before
	result, err := b.run.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

var errGone = fmt.Errorf("no route to host: %w", syncrun.ErrUnavailable)

var errInvalid = errors.New("document failed validation")
