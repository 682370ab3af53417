package syncjob_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncjob"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// records is a store of n records, whose keys are their numbers in one byte.
type records struct {
	n       byte
	stamped map[byte]int
}

type number byte

func (n number) String() string { return fmt.Sprint(byte(n)) }

func (r *records) bounds(within syncrun.Range) (first, last byte) {
	first, last = 1, r.n
	if within.After != nil {
		first = within.After[0] + 1
	}
	if within.Upto != nil {
		last = within.Upto[0]
	}
	return first, last
}

func (r *records) EndOfRange(_ context.Context, after []byte, size int) ([]byte, error) {
	first, last := r.bounds(syncrun.Range{After: after})
	if int(first)+size-1 >= int(last) {
		return nil, nil
	}
	return []byte{first + byte(size) - 1}, nil
}

func (r *records) Count(_ context.Context, _ syncrun.Selection, within syncrun.Range) (int64, error) {
	first, last := r.bounds(within)
	return int64(last-first) + 1, nil
}

func (r *records) Scan(_ context.Context, _ syncrun.Selection, within syncrun.Range) (syncrun.Cursor, error) {
	first, last := r.bounds(within)
	return &cursor{first, last}, nil
}

func (r *records) Stamp(_ context.Context, updates []syncrun.Update, _ syncrun.Selection) (syncrun.Stamped, error) {
	for _, u := range updates {
		r.stamped[u.Record.Key[0]]++
	}
	return syncrun.Stamped{Matched: int64(len(updates))}, nil
}

type cursor struct{ next, last byte }

func (c *cursor) Read(_ context.Context, records []syncrun.Record) (n int, err error) {
	for ; n < len(records) && c.next <= c.last; n++ {
		records[n] = syncrun.Record{Key: []byte{c.next}, ID: number(c.next)}
		c.next++
	}
	return n, nil
}

func (c *cursor) Close() {}

// kept is a jobtype.Ranges in memory.
type kept struct {
	specs [][]byte
	ends  []jobs.RangeInfo
	last  bool
}

func (k *kept) Split(context.Context) (jobs.Split, error) {
	s := jobs.Split{Ranges: len(k.specs), Complete: k.last}
	if len(k.specs) > 0 {
		s.Last = k.specs[len(k.specs)-1]
	}
	for _, end := range k.ends {
		if end.Ended {
			s.Ended++
		}
	}
	return s, nil
}

func (k *kept) Add(_ context.Context, index int, spec []byte, last bool) error {
	if index != len(k.specs) {
		return fmt.Errorf("range %d follows %d", index, len(k.specs))
	}
	k.specs, k.ends, k.last = append(k.specs, spec), append(k.ends, jobs.RangeInfo{}), last
	return nil
}

func (k *kept) Ended() <-chan struct{} { return nil }

func (k *kept) Requeue(context.Context) error { return nil }

func (k *kept) Each(_ context.Context, f func(int, jobs.RangeInfo) error) error {
	for i, end := range k.ends {
		if err := f(i, end); err != nil {
			return err
		}
	}
	return nil
}

func (k *kept) Discard(context.Context) error {
	*k = kept{}
	return nil
}

// attempt returns an attempt without Redis and without a worker.
func attempt(ranges jobtype.Ranges, saved *[]byte) *jobtype.Attempt {
	return &jobtype.Attempt{
		ID: tasks.TriggerID("user-sync", time.Now()), Definition: codex.UserSync, Payload: &tasks.SyncPayload{SyncType: tasks.SyncFull},
		Number: 1, Ranges: ranges, Log: slog.New(slog.DiscardHandler),
		Save: func(_ context.Context, checkpoint []byte, _ int) error {
			*saved = checkpoint
			return nil
		},
	}
}

// setup returns a store with 95 records, and its handler.
func setup(rangeSize int) (*records, jobtype.Handler) {
	store := &records{n: 95, stamped: make(map[byte]int)}
	return store, syncjob.New(store, syncjob.Options{
		Noun: "number", BatchSize: 10, Writers: 1, RangeSize: rangeSize, RetryBudget: time.Second,
	})
}

func (r *records) wantEachOnce(t *testing.T, from byte) {
	t.Helper()
	for i := from; i <= r.n; i++ {
		if r.stamped[i] != 1 {
			t.Errorf("record %d was stamped %d times", i, r.stamped[i])
		}
	}
}

func TestSmallRun(t *testing.T) {
	t.Parallel()
	store, handler := setup(1000)
	var saved []byte
	result, err := handler(t.Context(), attempt(new(kept), &saved))
	if r, ok := result.(tasks.SyncResult); err != nil || !ok || !r.Success || r.UsersProcessed != 95 || r.UsersUpdated != 95 || r.Errors != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	store.wantEachOnce(t, 1)
}

func TestResumedRun(t *testing.T) {
	t.Parallel()
	store, handler := setup(1000)
	var saved []byte
	a := attempt(new(kept), &saved)
	var err error
	if a.Checkpoint, err = json.Marshal(syncrun.Checkpoint{After: []byte{50}, Total: 95, Processed: 50, Updated: 49, Errors: 1}); err != nil {
		t.Fatal(err)
	}
	result, err := handler(t.Context(), a)
	if r, ok := result.(tasks.SyncResult); err != nil || !ok || r.UsersProcessed != 95 || r.UsersUpdated != 94 || r.Errors != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	store.wantEachOnce(t, 51)
	if len(store.stamped) != 45 {
		t.Errorf("%d records were stamped", len(store.stamped))
	}
}

// A split run adds up the results of its ranges.
func TestSplitRun(t *testing.T) {
	t.Parallel()
	store, handler := setup(20)
	ranges := new(kept)
	var saved []byte
	a := attempt(&working{ranges, func(spec []byte) (any, error) {
		part := attempt(nil, &saved)
		part.Range = spec
		return handler(t.Context(), part)
	}}, &saved)
	result, err := handler(t.Context(), a)
	if r, ok := result.(tasks.SyncResult); err != nil || !ok || r.UsersProcessed != 95 || r.UsersUpdated != 95 {
		t.Errorf("%+v, %v", result, err)
	}
	if len(ranges.specs) != 5 {
		t.Errorf("split into %d ranges, want 5", len(ranges.specs))
	}
	store.wantEachOnce(t, 1)
}

// A run over a collection that does not exist succeeds, so it must say so.
func TestCollectionThatDoesNotExist(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		records byte
		exists  bool
		err     error
		warned  bool
	}{
		"it has records":         {1, false, nil, false},
		"it is empty":            {0, true, nil, false},
		"it does not exist":      {0, false, nil, true},
		"it cannot be looked at": {0, false, errors.New("not authorized"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &records{n: test.records, stamped: make(map[byte]int)}
			handler := syncjob.New(store, syncjob.Options{
				Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 1000, RetryBudget: time.Second,
				Collection: "shop.numbers", Exists: func(context.Context) (bool, error) { return test.exists, test.err },
			})
			log, logger := testbed.NewLog(t)
			var saved []byte
			a := attempt(new(kept), &saved)
			a.Log = logger
			result, err := handler(t.Context(), a)
			r, _ := result.(tasks.SyncResult)
			if err != nil || !r.Success {
				t.Fatalf("%+v, %v", result, err)
			}
			if warned := len(r.Warnings) == 1 && strings.Contains(r.Warnings[0], "shop.numbers"); warned != test.warned || len(r.Warnings) > 1 {
				t.Errorf("warnings: %q", r.Warnings)
			}
			missing := procs.Match{Text: "does not exist", Attrs: procs.Attrs{"level": "WARN", "collection": "shop.numbers"}}
			if logged := len(log.Find(missing)) == 1; logged != test.warned {
				t.Errorf("logged: %v", logged)
			}
		})
	}
}

// working makes an attempt at each range as soon as it is added.
type working struct {
	*kept
	work func(spec []byte) (any, error)
}

func (w *working) Add(ctx context.Context, index int, spec []byte, last bool) error {
	if err := w.kept.Add(ctx, index, spec, last); err != nil {
		return err
	}
	result, err := w.work(spec)
	if err != nil {
		return err
	}
	w.ends[index].Ended = true
	w.ends[index].Checkpoint, err = json.Marshal(result)
	return err
}

func TestWrongInput(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*jobtype.Attempt){
		"checkpoint": func(a *jobtype.Attempt) { a.Checkpoint = []byte("{") },
		"range":      func(a *jobtype.Attempt) { a.Range = []byte("{") },
		"payload":    func(a *jobtype.Attempt) { a.Payload = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, handler := setup(1000)
			var saved []byte
			a := attempt(new(kept), &saved)
			spoil(a)
			if result, err := handler(t.Context(), a); err == nil || len(store.stamped) > 0 {
				t.Errorf("%+v, %v, %d stamped", result, err, len(store.stamped))
			}
		})
	}
}

// workFunc is a Work that sets dates.
type workFunc func(ctx context.Context, batch []syncrun.Record) error

func (f workFunc) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	return make([]syncrun.Outcome, len(batch)), f(ctx, batch)
}

// As many batches are worked on at the same time as Workers says, whatever Writers says.
func TestWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &records{n: 95, stamped: make(map[byte]int)}
		var now, most atomic.Int32
		work := workFunc(func(context.Context, []syncrun.Record) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		})
		handler := syncjob.New(store, syncjob.Options{
			Noun: "number", BatchSize: 10, Writers: 1, Workers: 5, RangeSize: 1000, RetryBudget: time.Second,
			Work: func(*jobtype.Attempt) syncrun.Work { return work },
		})
		var saved []byte
		if result, err := handler(t.Context(), attempt(new(kept), &saved)); err != nil || most.Load() != 5 {
			t.Errorf("%+v, %v, at most %d batches at the same time", result, err, most.Load())
		}
		store.wantEachOnce(t, 1)
	})
}

// Each try and each half of a batch is a call, within the rate limit.
func TestHalvesWithinTheRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &records{n: 8, stamped: make(map[byte]int)}
		calls, begun, ended := 0, 0, 0
		work := workFunc(func(_ context.Context, batch []syncrun.Record) error {
			if calls++; begun != calls || ended != calls-1 {
				t.Errorf("call %d: %d permits, of which %d have ended", calls, begun, ended)
			}
			if batch[0].Key[0] == 1 {
				return &syncrun.HalveError{Err: errors.New("told to"), Tries: 3}
			}
			return nil
		})
		handler := syncjob.New(store, syncjob.Options{
			Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 1000, RetryBudget: time.Second,
			Work: func(*jobtype.Attempt) syncrun.Work { return work },
		})
		var saved []byte
		a := attempt(new(kept), &saved)
		a.Definition.Rate = tasks.Rate{Calls: 1, Per: time.Second}
		a.Permit = func(context.Context) (func(), error) {
			begun++
			return func() { ended++ }, nil
		}
		result, err := handler(t.Context(), a)
		if r, ok := result.(tasks.SyncResult); err != nil || !ok || r.UsersUpdated != 7 || r.Errors != 1 || calls != 3+2*3 || ended != calls {
			t.Errorf("%+v, %v, %d calls, %d permits", result, err, calls, ended)
		}
	})
}
