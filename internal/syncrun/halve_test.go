package syncrun_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// picky is a Work that asks for halves of a batch with a bad record.
type picky struct {
	bad   []int
	tries int
	// before is called at the start of each call, and its error is returned. It can be nil.
	before func(ctx context.Context, batch string) error

	mu    sync.Mutex
	calls []string // "1-4" for a batch of four
}

func (p *picky) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	numbers := make([]int, len(batch))
	for i, r := range batch {
		numbers[i] = r.State.(int)
	}
	name := fmt.Sprintf("%d-%d", numbers[0], numbers[len(numbers)-1])
	p.mu.Lock()
	p.calls = append(p.calls, name)
	p.mu.Unlock()
	if p.before != nil {
		if err := p.before(ctx, name); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(numbers, func(n int) bool { return slices.Contains(p.bad, n) }) {
		return nil, fmt.Errorf("asking for %s: %w", name, &syncrun.HalveError{Err: errInvalid, Tries: p.tries})
	}
	return make([]syncrun.Outcome, len(batch)), nil
}

// halving returns a run with one batch, and its work.
func halving(t *testing.T, n, tries int, bad ...int) (*testBundle, *picky) {
	t.Helper()
	b, work := setup(t, n), &picky{bad: bad, tries: tries}
	b.run.Work, b.run.BatchSize, b.run.Writers = work, n, 1
	return b, work
}

func TestHalving(t *testing.T) {
	t.Parallel()
	var all []int
	for i := range 19 { // of 20 it would not be the records
		all = append(all, i+1)
	}
	for _, test := range []struct {
		name     string
		n, tries int
		bad      []int
		calls    int
		took     time.Duration
	}{
		{"none", 100, 3, nil, 1, 0},
		{"the first", 100, 3, []int{1}, 3 + 2*7, 300 * time.Millisecond}, // 50 25 13 7 4 2 1
		{"the last", 100, 3, []int{100}, 3 + 2*6, 300 * time.Millisecond},
		{"two", 100, 3, []int{1, 100}, 3 + 2 + 2*6 + 2*5, 300 * time.Millisecond},
		{"two beside each other", 100, 1, []int{1, 2}, 1 + 2*7, 0},
		{"all", 19, 2, all, 2 + 2*18, 100 * time.Millisecond},
		{"a single record", 1, 4, []int{1}, 4, 700 * time.Millisecond},
		{"no tries", 2, 0, []int{2}, 3, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, work := halving(t, test.n, test.tries, test.bad...)
				result := b.do(t)
				if errs := int64(len(test.bad)); result.Processed != int64(test.n) || result.Errors != errs || result.Updated != int64(test.n)-errs {
					t.Errorf("the result is %+v", result)
				}
				if len(work.calls) != test.calls || result.Elapsed != test.took {
					t.Errorf("%d calls in %s, want %d in %s: %v", len(work.calls), result.Elapsed, test.calls, test.took, work.calls)
				}
				whole := fmt.Sprintf("1-%d", test.n)
				for i := range min(max(1, test.tries), len(work.calls)) {
					if work.calls[i] != whole && test.bad != nil {
						t.Errorf("call %d was for %s", i+1, work.calls[i])
					}
				}
				var want []string
				for _, n := range test.bad { // each has the error of the call that had it alone
					want = append(want, fmt.Sprintf("User sync failed userId=id-%d username=user%d error=asking for %d-%d: %s", n, n, n, n, errInvalid))
				}
				slices.Sort(want)
				if got := b.log.lines("User sync failed"); !slices.Equal(got, want) {
					t.Errorf("the errors are %q, want %q", got, want)
				}
				for _, u := range b.store.users {
					if bad := slices.Contains(test.bad, u.number); u.stamped > 1 || bad == (u.stamped == 1) {
						t.Errorf("user %d was stamped %d times", u.number, u.stamped)
					}
				}
			})
		})
	}
}

// An upstream that is away while a batch is halved is asked again for that piece only.
func TestWaitWhileHalving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, work := halving(t, 8, 1, 1)
		waited := 0
		work.before = func(_ context.Context, batch string) error {
			if waited++; batch == "3-4" && waited < 8 {
				// What must wait waits, whatever else it says.
				return &syncrun.WaitError{Err: &syncrun.HalveError{Err: errGone, Tries: 1}, After: time.Second}
			}
			return nil
		}
		result := b.do(t)
		want := []string{"1-8", "1-4", "1-2", "1-1", "2-2", "3-4", "3-4", "3-4", "5-8"}
		if !slices.Equal(work.calls, want) || result.Errors != 1 || result.Updated != 7 || result.Elapsed != 2*time.Second {
			t.Errorf("%v, %+v, want %v", work.calls, result, want)
		}
	})
}

// What ends an attempt ends it while a batch is tried again, and between two pieces. Then no record has failed.
func TestEndWhileHalving(t *testing.T) {
	t.Parallel()
	cause := errors.New("taken over")
	const some = 150 * time.Millisecond
	for _, test := range []struct {
		name  string
		n     int           // how many records; the first one is bad
		at    int           // the call in which it happens
		later time.Duration // after that
		stop  bool
		wait  *syncrun.WaitError
		want  error
		calls int
		took  time.Duration
		known int // records that it got to, the bad one first
	}{
		{name: "stop while waiting", n: 8, at: 1, later: some, stop: true, want: syncrun.ErrStopped, calls: 2, took: some},
		{name: "stop between pieces", n: 8, at: 5, stop: true, want: syncrun.ErrStopped, calls: 5, took: 2 * some},
		{name: "context while waiting", n: 8, at: 1, later: some, want: cause, calls: 2, took: some},
		{name: "context in a call", n: 8, at: 5, want: cause, calls: 5, took: 2 * some},
		{name: "context in a call for one record", n: 8, at: 6, want: cause, calls: 6, took: 2 * some},
		{name: "context in the last call for the only record", n: 1, at: 3, want: cause, calls: 3, took: 2 * some},
		{name: "a long wait", n: 8, at: 9, wait: &syncrun.WaitError{Err: errGone, After: time.Hour}, want: errGone, calls: 9, took: 2 * some, known: 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				stop := make(chan struct{})
				b, work := halving(t, test.n, 3, 1)
				b.run.Stop = stop
				end := func() { cancel(cause) }
				if test.stop {
					end = func() { close(stop) }
				}
				work.before = func(context.Context, string) error {
					switch {
					case len(work.calls) != test.at:
					case test.wait != nil:
						return test.wait
					case test.later > 0:
						time.AfterFunc(test.later, end)
					default:
						end()
					}
					return nil
				}
				started := time.Now()
				_, err := b.run.Do(ctx)
				if took := time.Since(started); !errors.Is(err, test.want) || took != test.took || len(work.calls) != test.calls {
					t.Errorf("%v after %s and the calls %v", err, took, work.calls)
				}
				c := b.saved.checkpoint(t)
				if lines := b.log.lines("User sync failed"); len(lines) != min(1, test.known) || c.Processed != int64(test.known) || c.Errors != int64(min(1, test.known)) {
					t.Errorf("failed: %q, the checkpoint is %+v", lines, c)
				}
				work.before, b.run.Resume = nil, c
				if result := b.do(t); result.Updated != int64(test.n-1) || result.Errors != 1 {
					t.Errorf("the next attempt: %+v", result)
				}
			})
		})
	}
}

// An endpoint takes ten requests an hour. A batch with a bad record needs more, and comes to an end.
func TestWaitsInTheMiddleOfHalving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, work := halving(t, 100, 3, 50)
		left := 0
		work.before = func(context.Context, string) error {
			if left == 0 {
				return &syncrun.WaitError{Err: errGone, After: time.Hour}
			}
			left--
			return nil
		}
		for range 24 {
			left = 10
			result, err := b.run.Do(t.Context())
			if err == nil {
				if result.Processed != 100 || result.Updated != 99 || result.Errors != 1 {
					t.Errorf("the result is %+v", result)
				}
				for _, u := range b.store.users {
					if want := map[bool]int{true: 1}[u.number != 50]; u.stamped != want {
						t.Errorf("user %d was updated %d times", u.number, u.stamped)
					}
				}
				return
			}
			if !errors.As(err, new(*syncrun.WaitError)) {
				t.Fatal(err)
			}
			b.run.Resume = b.saved.checkpoint(t)
		}
		t.Errorf("it goes on for a day: %s", work.calls)
	})
}
