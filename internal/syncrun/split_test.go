package syncrun_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// crew starts workers that take ranges from the queue until stop is called. They do not retry a range.
func (b *testBundle) crew(ctx context.Context, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	pass := b.run.Pass
	var crew sync.WaitGroup
	for range n {
		crew.Go(func() {
			for ctx.Err() == nil {
				owner := new(int)
				p, ok := b.ranges.take(owner)
				if !ok {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if err := b.ranges.work(ctx, pass, p, owner, nil); err != nil && ctx.Err() == nil {
					b.ranges.fail(p, err)
				}
			}
		})
	}
	return func() {
		cancel()
		crew.Wait()
	}
}

// wantEachOnce checks that every user was updated exactly once.
func (b *testBundle) wantEachOnce(t *testing.T) {
	t.Helper()
	b.store.locked(func() {
		for _, u := range b.store.users {
			if u.stamped != 1 {
				t.Fatalf("user %d was updated %d times", u.number, u.stamped)
			}
		}
	})
}

func TestLargeRunsAreSplit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ n, size, ranges int }{
		{0, 100, 0}, {99, 100, 0}, {100, 100, 0}, {101, 100, 2}, {200, 100, 2}, {201, 100, 3}, {1000, 100, 10}, {7, 1, 7},
	} {
		t.Run(fmt.Sprintf("%d records by %d", test.n, test.size), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, test.n)
				b.run.RangeSize = test.size
				defer b.crew(t.Context(), 3)()
				result := b.do(t)
				if result.Processed != int64(test.n) || result.Updated != int64(test.n) || result.Errors != 0 {
					t.Errorf("the result is %+v", result)
				}
				b.wantEachOnce(t)
				if got := len(b.ranges.list); got != test.ranges {
					t.Errorf("split into %d ranges, want %d", got, test.ranges)
				}
			})
		})
	}
}

// TestProgressOfASplitRun checks the progress of a run while its ranges end one after another.
func TestProgressOfASplitRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 1200)
		b.run.RangeSize = 300
		b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				time.Sleep(time.Second)
			}
			return nil
		}
		defer b.crew(t.Context(), 1)()
		result := b.do(t)
		if result.Elapsed < 32*time.Second || result.Elapsed > 33*time.Second {
			t.Errorf("120 batches of a second, 4 at a time and 30 in a range, took %s", result.Elapsed)
		}
		seen, previous := make(map[int]bool), 0
		for _, progress := range b.saved.progress {
			seen[progress] = true
			if progress < previous || progress > 99 {
				t.Errorf("%d %% follows %d %%", progress, previous)
			}
			previous = progress
		}
		if !seen[25] || !seen[50] || !seen[75] || len(seen) < 7 {
			t.Errorf("shown: %v, want each range and steps in between", b.saved.progress)
		}
	})
}

func TestRangeFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 50)
		b.run.RangeSize = 10
		refused := errors.New("not authorized")
		b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
			if operation == "stamp" && records[0].State.(int) == 21 {
				return refused
			}
			return nil
		}
		defer b.crew(t.Context(), 2)()
		_, err := b.run.Do(t.Context())
		if !errors.Is(err, syncrun.ErrRangesFailed) || !strings.Contains(err.Error(), "1 of 5; 40 users were updated; range 2: ") ||
			!strings.Contains(err.Error(), refused.Error()) {
			t.Errorf("%v", err)
		}
	})
}

func TestAllFailInAllRanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 50)
		b.run.RangeSize = 10
		for _, u := range b.store.users {
			u.fails = errInvalid
		}
		defer b.crew(t.Context(), 2)()
		if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrAllFailed) || !strings.Contains(err.Error(), errInvalid.Error()) {
			t.Errorf("%v", err)
		}
		for _, u := range b.store.users {
			u.fails = nil
		}
		b.run.Resume = b.saved.checkpoint(t)
		if result := b.do(t); result.Processed != 50 || result.Updated != 50 || result.Errors != 0 {
			t.Errorf("then the result is %+v", result)
		}
	})
}

// TestLostTasksAreEnqueuedAgain loses the tasks of all ranges.
func TestLostTasksAreEnqueuedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 100)
		b.run.RangeSize = 10
		b.ranges.lossy = true
		defer b.crew(t.Context(), 2)()
		result := b.do(t)
		if result.Updated != 100 || result.Elapsed > 40*time.Second || b.ranges.requeued != 1 {
			t.Errorf("the result is %+v, requeued %d times", result, b.ranges.requeued)
		}
		b.wantEachOnce(t)
	})
}

func TestRangesAreGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 100)
		b.run.RangeSize = 10
		time.AfterFunc(time.Second, func() { _ = b.ranges.Discard(t.Context()) })
		if _, err := b.run.Do(t.Context()); err == nil || errors.Is(err, syncrun.ErrStopped) {
			t.Errorf("%v, want a failed attempt", err)
		}
	})
}

func TestStopASplitRun(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"splitting", "waiting"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 100)
				b.run.RangeSize = 10
				b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
					if operation == "split" && when == "splitting" {
						sleep(ctx, 10*time.Second)
					}
					return nil
				}
				stop := make(chan struct{})
				time.AfterFunc(15*time.Second, func() { close(stop) })
				started := time.Now()
				b.run.Stop = stop
				if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrStopped) {
					t.Errorf("%v", err)
				}
				if waited := time.Since(started); waited != 15*time.Second {
					t.Errorf("stopped after %s, was asked to after 15 s", waited)
				}
				b.run.Resume = b.saved.checkpoint(t)
				if b.run.Resume.Elapsed < 15*time.Second {
					t.Errorf("the time that it took is forgotten: %+v", b.run.Resume)
				}
				defer b.crew(t.Context(), 2)()
				if result := b.do(t); result.Updated != 100 {
					t.Errorf("then the result is %+v", result)
				}
				b.wantEachOnce(t)
			})
		})
	}
}

// TestSplitRunSurvives kills attempts at a run and at its ranges, at random, until the run is done.
func TestSplitRunSurvives(t *testing.T) {
	t.Parallel()
	for range 40 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { survive(t, rand.New(rand.NewPCG(seed, 3))) })
		})
	}
}

func survive(t *testing.T, random *rand.Rand) {
	n := 200 + random.IntN(400)
	b := setup(t, n)
	b.run.BatchSize, b.run.Writers, b.run.RangeSize = 1+random.IntN(10), 1+random.IntN(3), 20+random.IntN(80)
	failing := int64(0)
	for _, u := range b.store.users {
		if random.IntN(20) == 0 {
			u.fails = errInvalid
			failing++
		}
	}
	b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
		switch operation {
		case "stamp":
			sleep(ctx, 300*time.Millisecond)
		case "split":
			sleep(ctx, 100*time.Millisecond)
		}
		return nil
	}
	killed := errors.New("killed")
	// dies returns a context that ends at some time, and whether the attempt can still save after that.
	dies := func(within time.Duration) (context.Context, context.CancelCauseFunc, func()) {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(within))), func() { cancel(killed) })
		return ctx, cancel, func() { timer.Stop() }
	}
	kills := 0
	var mu sync.Mutex // of kills, and of random
	ctx, end := context.WithCancel(t.Context())
	pass := b.run.Pass
	var crew sync.WaitGroup
	for range 1 + random.IntN(3) {
		crew.Go(func() {
			for ctx.Err() == nil {
				owner := new(int)
				p, ok := b.ranges.take(owner)
				if !ok {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				life, cancel, stopTimer := dies(5 * time.Second)
				mu.Unlock()
				err := b.ranges.work(life, pass, p, owner, nil)
				stopTimer()
				cancel(nil)
				if err != nil {
					mu.Lock()
					kills++
					mu.Unlock()
					time.Sleep(100 * time.Millisecond) // until the run notices
					b.ranges.put(p)
				}
			}
		})
	}
	var result syncrun.Result
	for attempt := 0; ; attempt++ {
		if attempt > 200 {
			t.Fatal("does not come to an end")
		}
		mu.Lock()
		life, cancel, stopTimer := dies(2 * time.Second)
		if attempt > 20 { // long enough for the slowest
			stopTimer()
		}
		mu.Unlock()
		var err error
		b.ranges.before = func(operation string) error { // dies in the middle of something
			if life.Err() != nil && operation != "added" {
				return killed
			}
			return nil
		}
		result, err = b.run.Do(life)
		stopTimer()
		cancel(nil)
		if err == nil {
			break
		}
		if !errors.Is(err, killed) {
			t.Fatal(err)
		}
		b.run.Resume = b.saved.checkpoint(t)
	}
	end()
	crew.Wait()
	if result.Processed != int64(n) || result.Errors != failing || result.Updated != int64(n)-failing {
		t.Errorf("the result is %+v, want %d processed and %d errors", result, n, failing)
	}
	again := 0
	b.store.locked(func() {
		for _, u := range b.store.users {
			if u.fails == nil && u.stamped == 0 {
				t.Errorf("user %d was left out", u.number)
			}
			again += max(0, u.stamped-1)
		}
	})
	if limit := kills * 3 * b.run.Writers * b.run.BatchSize; again > limit {
		t.Errorf("%d users were updated again after %d kills, want at most %d", again, kills, limit)
	}
}

// slow is a Work that takes that long.
type slow struct{ wait time.Duration }

func (s slow) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	select {
	case <-time.After(s.wait):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return make([]syncrun.Outcome, len(batch)), nil
}

// erring is a Work that sets a field of the first of three records, nothing of the second, and fails for the third.
type erring struct{}

func (erring) Do(_ context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	outcomes := make([]syncrun.Outcome, len(batch))
	for i, r := range batch {
		switch r.State.(int) % 3 {
		case 1:
			outcomes[i].Set = map[string]any{"followers": r.State}
		case 2:
			outcomes[i].Err = errInvalid
		}
	}
	return outcomes, nil
}

func TestWork(t *testing.T) {
	t.Parallel()
	b := setup(t, 300)
	b.run.Work = erring{}
	if result := b.do(t); result.Processed != 300 || result.Updated != 200 || result.Errors != 100 {
		t.Errorf("the result is %+v", result)
	}
	for _, u := range b.store.users {
		want := map[int]string{0: "map[]", 1: fmt.Sprintf("map[followers:%d]", u.number), 2: "map[]"}[u.number%3]
		if got := fmt.Sprint(u.set); got != want || (u.stamped == 0) != (u.number%3 == 2) {
			t.Errorf("user %d has %s, want %s; updated %d times", u.number, got, want, u.stamped)
		}
	}
	if got := len(b.log.lines("User sync failed")); got != 100 {
		t.Errorf("logged %d failures", got)
	}
}

// TestSlowWorkIsShared checks that more workers wait for slow work at the same time.
func TestSlowWorkIsShared(t *testing.T) {
	t.Parallel()
	took := make(map[int]time.Duration)
	for _, workers := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t, 10_000)
			b.run.Writers, b.run.RangeSize, b.run.Work = 1, 500, slow{20 * time.Millisecond}
			defer b.crew(t.Context(), workers)()
			took[workers] = b.do(t).Elapsed
		})
	}
	if ratio := took[1].Seconds() / took[4].Seconds(); ratio < 3.8 {
		t.Errorf("four workers are %.2f times as fast as one: %v", ratio, took)
	}
}

// unavailable is a Work whose upstream is away for a while.
type unavailable struct{ until time.Time }

func (u unavailable) Do(_ context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	if time.Now().Before(u.until) {
		return nil, &syncrun.WaitError{Err: errors.New("no route to host")}
	}
	return make([]syncrun.Outcome, len(batch)), nil
}

func TestWorkIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 100)
		b.run.Work = unavailable{time.Now().Add(30 * time.Second)}
		var said atomic.Pointer[syncrun.Wait]
		b.run.Waiting = func(_ context.Context, w syncrun.Wait) { said.Store(&w) }
		if result := b.do(t); result.Updated != 100 {
			t.Errorf("the result is %+v", result)
		}
		if w := said.Load(); w == nil || !w.Upstream || w.Slow || w.For != "working on users: no route to host" {
			t.Errorf("it said that it waits for %+v", w)
		}
	})
}

// A Work that takes long is no database that does not answer.
func TestSlowWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 20)
		var said atomic.Pointer[syncrun.Wait]
		b.run.Waiting = func(_ context.Context, w syncrun.Wait) { said.Store(&w) }
		b.run.Work = slow{25 * time.Second}
		b.do(t)
		if w := said.Load(); w == nil || !w.Upstream || !w.Slow || w.For != "working on users" {
			t.Errorf("it said that it waits for %+v", w)
		}
		if lines := b.log.lines("Database does not answer"); len(lines) > 0 {
			t.Errorf("the log has %q", lines)
		}
	})
}

// A wait that is longer than any time ends the attempt, as any other wait beyond the retry budget does.
func TestWaitForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 10)
		b.run.Work = workFunc(func(context.Context, []syncrun.Record) error {
			time.Sleep(time.Millisecond)
			return &syncrun.WaitError{Err: errGone, After: math.MaxInt64}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := b.run.Do(ctx); !errors.As(err, new(*syncrun.WaitError)) {
			t.Errorf("got %v", err)
		}
	})
}

// failsOnce is a Work that takes a while, and fails once with the batch of a record. It counts how often it gets each record.
type failsOnce struct {
	bad    string
	failed *atomic.Bool
	mu     *sync.Mutex
	seen   map[string]int
}

func (f failsOnce) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	bad := false
	f.mu.Lock()
	for _, r := range batch {
		f.seen[r.ID.String()]++
		bad = bad || r.ID.String() == f.bad
	}
	f.mu.Unlock()
	if bad && f.failed.CompareAndSwap(false, true) {
		return nil, errInvalid
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return make([]syncrun.Outcome, len(batch)), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// After a failed attempt, and after a crash, only the batches come again whose work was not done and written.
func TestWorkIsDoneOnce(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t, 200)
			b.run.Selection.Full = full
			work := failsOnce{bad: "id-35", failed: new(atomic.Bool), mu: new(sync.Mutex), seen: make(map[string]int)}
			b.run.Work = work
			if _, err := b.run.Do(t.Context()); !errors.Is(err, errInvalid) {
				t.Fatalf("the first attempt: %v", err)
			}
			resume := b.saved.checkpoint(t)
			for _, b.run.Resume = range []syncrun.Checkpoint{resume, {}} { // the second as after a crash before any save
				if result := b.do(t); result.Processed != 200 || result.Updated != 200 || result.Errors != 0 {
					t.Errorf("the result is %+v", result)
				}
			}
			for i := range 200 {
				id, want := fmt.Sprintf("id-%d", i+1), 1
				if i/10 == 3 {
					want = 2
				}
				if work.seen[id] != want {
					t.Errorf("full %v: %s was given to the work %d times, want %d", full, id, work.seen[id], want)
				}
			}
			b.wantEachOnce(t)
		})
	}
}

// A batch that does not end is not waited for without end when another one has failed.
func TestFailureEndsWhatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 40)
		b.run.Work = workFunc(func(ctx context.Context, batch []syncrun.Record) error {
			if batch[0].ID.String() == "id-1" {
				return errInvalid
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		started := time.Now()
		if _, err := b.run.Do(t.Context()); !errors.Is(err, errInvalid) {
			t.Errorf("%v", err)
		}
		if took := time.Since(started); took > time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

// workFunc is a Work that only sets dates.
type workFunc func(ctx context.Context, batch []syncrun.Record) error

func (f workFunc) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	return make([]syncrun.Outcome, len(batch)), f(ctx, batch)
}

// short is a Work that forgets a record.
type short struct{}

func (short) Do(_ context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	return make([]syncrun.Outcome, len(batch)-1), nil
}

func TestWorkMustAnswerForEach(t *testing.T) {
	t.Parallel()
	b := setup(t, 100)
	b.run.Work = short{}
	if _, err := b.run.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "9 outcomes for a batch of 10") {
		t.Errorf("%v", err)
	}
}

// A full run that is split counts its records once, while its ranges work, and neither waits for that nor fails with it. The ranges of
// an incremental one count their own.
func TestTotalOfASplitRun(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		full   bool
		resume int64 // the total that an earlier attempt has found
		count  func(context.Context) error
		total  int64
		counts int
	}{
		{name: "at once", full: true, total: 1200, counts: 1},
		{name: "slow", full: true, count: func(ctx context.Context) error { sleep(ctx, time.Second); return nil }, total: 1200, counts: 1},
		{name: "hangs", full: true, count: func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, counts: 1},
		{name: "is refused", full: true, count: func(context.Context) error { return errors.New("not authorized") }, counts: 1},
		{name: "known", full: true, resume: 1234, total: 1234},
		{name: "incremental", total: 0, counts: 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 1200)
				b.run.RangeSize, b.run.Selection.Full, b.run.Resume.Total = 300, test.full, test.resume
				b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
					switch {
					case operation == "count" && test.count != nil:
						return test.count(ctx)
					case operation == "stamp":
						sleep(ctx, time.Second)
					}
					return nil
				}
				defer b.crew(t.Context(), 1)()
				if result := b.do(t); result.Processed != 1200 || result.Elapsed > 33*time.Second {
					t.Errorf("the result is %+v", result)
				}
				if last := b.saved.checkpoint(t); last.Total != test.total || last.Processed != 0 {
					t.Errorf("the last checkpoint is %+v, want a total of %d", last, test.total)
				}
				if n := b.store.calls["count"]; n != test.counts {
					t.Errorf("counted %d times, want %d", n, test.counts)
				}
			})
		})
	}
}
