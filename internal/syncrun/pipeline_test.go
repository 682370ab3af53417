package syncrun_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// TestReadsAhead holds up the work, or the writes, and checks how far the rest gets meanwhile.
func TestReadsAhead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		workers, writers     int
		hold                 string // "work" or "stamp"
		read, worked, writes int    // batches
	}{
		{4, 1, "work", 9, 4, 0}, // one for each worker is read ahead, and the reader has one more in its hand
		{0, 2, "work", 5, 2, 0},
		{4, 1, "stamp", 17, 12, 1}, // three for each worker are worked on
		{1, 4, "stamp", 14, 12, 4},
		{0, 2, "stamp", 9, 6, 2},
	} {
		t.Run(fmt.Sprintf("%d workers, %d writers, %s", test.workers, test.writers, test.hold), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 10_000)
				b.run.Workers, b.run.Writers, b.run.RangeSize = test.workers, test.writers, 10_000
				release := make(chan struct{})
				var worked atomic.Int32
				b.run.Work = workFunc(func(context.Context, []syncrun.Record) error {
					worked.Add(1)
					if test.hold == "work" {
						<-release
					}
					return nil
				})
				b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
					if operation == test.hold {
						<-release
					}
					return nil
				}
				done := make(chan error)
				go func() {
					_, err := b.run.Do(t.Context())
					done <- err
				}()
				synctest.Wait()
				b.store.locked(func() {
					if read, writes := b.store.reads/10, b.store.calls["stamp"]; read != test.read || int(worked.Load()) != test.worked || writes != test.writes {
						t.Errorf("%d batches are read, %d worked on, %d being written", read, worked.Load(), writes)
					}
				})
				close(release)
				if err := <-done; err != nil {
					t.Error(err)
				}
				b.wantEachOnce(t)
			})
		})
	}
}

// Batches are written while others wait in the work: the writes take no time of their own.
func TestWritesTakeNoTimeOfTheWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 1600)
		b.run.Workers, b.run.Writers, b.run.Work = 16, 2, slow{200 * time.Millisecond}
		b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		}
		// 160 batches, 16 at a time, take 2 s. The last 16 are written after that, 2 at a time, in 160 ms.
		if result := b.do(t); result.Updated != 1600 || result.Elapsed > 2200*time.Millisecond {
			t.Errorf("the result is %+v", result)
		}
	})
}

// seen counts how often the work gets each record, and when it began last.
type seen struct {
	mu    sync.Mutex
	times map[string]int
	last  time.Time
}

func (s *seen) add(batch []syncrun.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch {
		s.times[r.ID.String()]++
	}
	s.last = time.Now()
}

// A stop begins no work, not even on what is read, and throws no work away: over two attempts the work gets each record once.
func TestStopBeginsNoWork(t *testing.T) {
	t.Parallel()
	for _, n := range []int{60, 1000} { // of the small one all batches are read when it stops
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, n)
				got := seen{times: make(map[string]int)}
				b.run.Workers, b.run.Writers = 3, 1
				b.run.Work = workFunc(func(_ context.Context, batch []syncrun.Record) error {
					got.add(batch)
					time.Sleep(time.Second)
					return nil
				})
				b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
					if operation == "stamp" {
						time.Sleep(100 * time.Millisecond)
					}
					return nil
				}
				stop := make(chan struct{})
				b.run.Stop = stop
				started := time.Now()
				time.AfterFunc(500*time.Millisecond, func() { close(stop) })
				if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrStopped) {
					t.Fatalf("%v", err)
				}
				if took := time.Since(started); !got.last.Equal(started) || took != 1300*time.Millisecond {
					t.Errorf("the last work began after %s, and the attempt ended after %s", got.last.Sub(started), took)
				}
				b.run.Resume = b.saved.checkpoint(t)
				if b.run.Resume.Processed != 30 {
					t.Errorf("the checkpoint is %+v", b.run.Resume)
				}
				if result := b.do(t); result.Processed != int64(n) || result.Updated != int64(n) {
					t.Errorf("the result is %+v", result)
				}
				for _, u := range b.store.users {
					if times := got.times[fmt.Sprintf("id-%d", u.number)]; times != 1 {
						t.Errorf("the work got user %d %d times", u.number, times)
					}
				}
				b.wantEachOnce(t)
			})
		})
	}
}

// observed counts what Observe is told.
type observed struct {
	mu     sync.Mutex
	ends   []int // of each batch begun
	failed int
}

type observedKey struct{}

func (o *observed) observe(ctx context.Context, _ int) (context.Context, func(updated, failed int64, err error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := len(o.ends)
	o.ends = append(o.ends, 0)
	return context.WithValue(ctx, observedKey{}, i), func(_, _ int64, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ends[i]++
		if err != nil {
			o.failed++
		}
	}
}

// TestAttemptEnds lets an attempt end in each way, while batches are in each place. It returns the first error, tells Observe of
// the end of each batch, and leaves nothing behind.
func TestAttemptEnds(t *testing.T) {
	t.Parallel()
	first, second, cause := errors.New("first"), errors.New("second"), errors.New("taken over")
	const batchTime = time.Second
	type step struct {
		work, stamp func(ctx context.Context, batch int) error
		after       time.Duration // when Stop is closed, or the context ends with the cause
		stop        bool
		want        string
		within      time.Duration
		workers     int // 4 by default
		writers     int // 2 by default
	}
	at := func(batch int, err error) func(context.Context, int) error {
		return func(_ context.Context, b int) error {
			if b == batch {
				return err
			}
			return nil
		}
	}
	slowly := func(f func(context.Context, int) error) func(context.Context, int) error {
		return func(ctx context.Context, b int) error {
			select {
			case <-time.After(batchTime):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if f == nil {
				return nil
			}
			return f(ctx, b)
		}
	}
	hang := func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	panics := func(_ context.Context, b int) error {
		if b == 2 {
			panic("told to")
		}
		return nil
	}
	for name, test := range map[string]step{
		"all well":                     {within: time.Minute},
		"the work fails":               {work: at(5, first), want: "first", within: time.Minute},
		"the work fails, writes hang":  {work: at(5, first), stamp: hang, want: "first", within: 31 * time.Second},
		"the work panics":              {work: panics, want: "panic: told to", within: time.Minute},
		"the work panics, slow writes": {work: panics, stamp: slowly(nil), want: "panic: told to", within: time.Minute},
		"a write fails":                {stamp: at(3, first), want: "first", within: time.Minute},
		"a write panics":               {stamp: panics, want: "panic: told to", within: time.Minute},
		"all writes fail":              {stamp: slowly(func(context.Context, int) error { return first }), want: "first", within: 2 * time.Second},
		"all writes fail, the work hangs": {work: func(ctx context.Context, b int) error {
			if b < 3 {
				return nil
			}
			return hang(ctx, b)
		}, stamp: slowly(func(context.Context, int) error { return first }), want: "first", within: 2 * time.Second}, // each writer has a batch by then
		"the only writer fails":              {stamp: slowly(func(context.Context, int) error { return first }), writers: 1, want: "first", within: 2 * time.Second},
		"a write fails, and then the work":   {stamp: at(0, first), work: slowly(at(4, second)), want: "first", within: time.Minute},
		"the work fails, and then a write":   {stamp: slowly(at(0, second)), work: at(4, first), want: "first", within: time.Minute},
		"stop":                               {work: slowly(nil), stamp: slowly(nil), after: 2500 * time.Millisecond, stop: true, want: syncrun.ErrStopped.Error(), within: 10 * time.Second},
		"stop with slow writes":              {stamp: slowly(nil), after: 500 * time.Millisecond, stop: true, want: syncrun.ErrStopped.Error(), within: 10 * time.Second},
		"context in the work":                {work: hang, after: time.Second, want: cause.Error(), within: time.Second},
		"context in the writes":              {stamp: hang, after: time.Second, want: cause.Error(), within: time.Second},
		"context while batches are queued":   {stamp: hang, writers: 1, workers: 8, after: time.Second, want: cause.Error(), within: time.Second},
		"the work must wait, and stop":       {work: at(3, &syncrun.WaitError{Err: errGone, After: 50 * time.Second}), after: time.Second, stop: true, want: syncrun.ErrStopped.Error(), within: time.Second},
		"the store is away, and stop":        {stamp: at(3, errGone), after: time.Second, stop: true, want: syncrun.ErrStopped.Error(), within: time.Second},
		"the work must wait for too long":    {work: at(3, &syncrun.WaitError{Err: errGone, After: time.Hour}), want: "no route to host", within: time.Second},
		"more workers than batches, slow":    {work: slowly(nil), workers: 100, within: 2 * time.Second},
		"more writers than workers, failing": {work: at(7, first), stamp: slowly(nil), workers: 1, writers: 8, want: "first", within: 10 * time.Second},
	} {
		for _, stamping := range []bool{false, true} {
			if stamping {
				if test.work != nil {
					continue
				}
				name += ", without work"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := setup(t, 300)
					b.run.Workers, b.run.Writers = 4, 2
					if test.workers > 0 {
						b.run.Workers = test.workers
					}
					if test.writers > 0 {
						b.run.Writers = test.writers
					}
					var observed observed
					b.run.Observe = observed.observe
					numberOf := func(batch []syncrun.Record) int { return (batch[0].State.(int) - 1) / 10 }
					b.run.Work = workFunc(func(ctx context.Context, batch []syncrun.Record) error {
						if ctx.Value(observedKey{}) == nil {
							t.Error("the work has another context than Observe's")
						}
						if test.work == nil {
							return nil
						}
						return test.work(ctx, numberOf(batch))
					})
					if stamping {
						b.run.Work = syncrun.Stamping{}
					}
					b.store.before = func(ctx context.Context, operation string, records []syncrun.Record) error {
						if operation != "stamp" {
							return nil
						}
						if ctx.Value(observedKey{}) == nil {
							t.Error("a write has another context than Observe's")
						}
						if test.stamp == nil {
							return nil
						}
						return test.stamp(ctx, numberOf(records))
					}
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					stop := make(chan struct{})
					b.run.Stop = stop
					if test.after > 0 {
						time.AfterFunc(test.after, func() {
							if test.stop {
								close(stop)
							} else {
								cancel(cause)
							}
						})
					}
					started := time.Now()
					_, err := b.run.Do(ctx)
					if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
						t.Errorf("%v, want %q", err, test.want)
					}
					if took := time.Since(started); took > test.within {
						t.Errorf("it took %s", took)
					}
					for i, n := range observed.ends {
						if n != 1 {
							t.Errorf("batch %d of %d ended %d times", i, len(observed.ends), n)
						}
					}
					b.store.locked(func() {
						written := 0
						for _, u := range b.store.users {
							written += u.stamped
						}
						if done := len(observed.ends) - observed.failed; written != 10*done || len(observed.ends) == 0 {
							t.Errorf("%d records were written, of %d batches begun, %d of which failed", written, len(observed.ends), observed.failed)
						}
					})
					if test.want == "" {
						return
					}
					// Nothing is lost.
					b.store.before, b.run.Work, b.run.Resume = nil, syncrun.Stamping{}, b.saved.checkpoint(t)
					if result := b.do(t); result.Processed != 300 || result.Updated != 300 {
						t.Errorf("the next attempt: %+v", result)
					}
					b.wantEachOnce(t)
				})
			})
		}
	}
}

// When a writer fails, the others write what is worked on.
func TestOtherWritersGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 1000)
		b.run.Workers, b.run.Writers = 4, 2
		got := seen{times: make(map[string]int)}
		b.run.Work = workFunc(func(_ context.Context, batch []syncrun.Record) error {
			got.add(batch)
			return nil
		})
		b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
			if operation == "stamp" {
				time.Sleep(time.Second)
				if records[0].State == 1 {
					return errInvalid
				}
			}
			return nil
		}
		if _, err := b.run.Do(t.Context()); !errors.Is(err, errInvalid) {
			t.Errorf("%v", err)
		}
		if len(got.times) < 100 {
			t.Errorf("only %d records were worked on", len(got.times))
		}
		for _, u := range b.store.users {
			_, worked := got.times[fmt.Sprintf("id-%d", u.number)]
			if want := worked && u.number > 10; want != (u.stamped == 1) {
				t.Errorf("user %d was worked on: %v, and stamped %d times", u.number, worked, u.stamped)
			}
		}
	})
}

// Passes that share slots never wait for each other, whichever gets which first.
func TestPassesShareSlots(t *testing.T) {
	t.Parallel()
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			slots := syncrun.NewSlots(1, 1)
			var both sync.WaitGroup
			for range 2 {
				b := setup(t, 100)
				pass := b.run.Pass
				pass.Writers, pass.Slots, pass.Work = 1, slots, slow{time.Millisecond}
				both.Go(func() {
					if end, err := pass.Do(t.Context()); err != nil || end.Updated != 100 {
						t.Errorf("%+v, %v", end, err)
					}
				})
			}
			both.Wait()
		})
	}
}
