package syncrun_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// sleep waits a random time up to most, as a database does, or until ctx ends.
func sleep(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func TestVisitsEachDueRecordOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 9, 10, 11, 40, 1000} {
		for _, writers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%d records, %d writers", n, writers), func(t *testing.T) {
				t.Parallel()
				b := setup(t, n)
				b.run.Writers = writers
				due := 0
				for i, u := range b.store.users {
					switch i % 5 {
					case 1:
						u.stamp = reference.Add(-freshness + time.Millisecond)
					case 2:
						u.stamp = reference.Add(-freshness)
					case 3:
						u.stamp = reference.Add(time.Hour)
					}
					if u.due(incremental) {
						due++
					}
				}
				before := make([]bool, n)
				for i, u := range b.store.users {
					before[i] = u.due(incremental)
				}
				result := b.do(t)
				for i, u := range b.store.users {
					if want := map[bool]int{true: 1}[before[i]]; u.stamped != want {
						t.Errorf("user %d was updated %d times, want %d", u.number, u.stamped, want)
					}
				}
				if result.Processed != int64(due) || result.Updated != int64(due) || result.Errors != 0 {
					t.Errorf("the result is %+v, want %d processed and updated", result, due)
				}
			})
		}
	}
}

func TestFullVisitsAll(t *testing.T) {
	t.Parallel()
	b := setup(t, 25)
	b.run.Selection.Full = true
	for _, u := range b.store.users {
		u.stamp = reference.Add(time.Minute) // fresher than fresh
	}
	if result := b.do(t); result.Processed != 25 || result.Updated != 25 {
		t.Errorf("the result is %+v", result)
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	if result := b.do(t); result.Processed != 0 || result.Updated != 0 || result.Errors != 0 {
		t.Errorf("the result is %+v", result)
	}
	if n := b.store.calls["stamp"]; n != 0 {
		t.Errorf("stamped %d times", n)
	}
}

func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t, 20)
	b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
		if operation == "stamp" {
			b.store.locked(func() { b.store.users[records[3].State.(int)-1].deleted = true })
		}
		return nil
	}
	if result := b.do(t); result.Processed != 20 || result.Updated != 18 || result.Errors != 0 {
		t.Errorf("the result is %+v, want 20 processed, 18 updated", result)
	}
}

func TestBatchesAreWrittenAtTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 80)
		var now, most atomic.Int32
		b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
			if operation == "stamp" {
				if len(records) != 10 {
					t.Errorf("a batch of %d", len(records))
				}
				most.Store(max(most.Load(), now.Add(1)))
				time.Sleep(time.Second)
				now.Add(-1)
			}
			return nil
		}
		result := b.do(t)
		if most.Load() != 4 {
			t.Errorf("at most %d batches were written at the same time, want 4", most.Load())
		}
		if result.Elapsed != 2*time.Second {
			t.Errorf("8 batches of a second with 4 writers took %s", result.Elapsed)
		}
	})
}

// TestCheckpointHasNoGaps lets batches complete in any order.
func TestCheckpointHasNoGaps(t *testing.T) {
	t.Parallel()
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t, 400)
			b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
				if operation == "stamp" {
					sleep(ctx, 2*time.Second)
				}
				return nil
			}
			previous := syncrun.Checkpoint{}
			b.saved.check = func(c syncrun.Checkpoint) {
				b.store.locked(func() {
					done := int64(0)
					for _, u := range b.store.users {
						if bytes.Compare(u.key(), c.After) <= 0 {
							done++
							if u.stamped == 0 {
								t.Errorf("user %d is before the checkpoint and not done", u.number)
							}
						}
					}
					if done != c.Processed || done != c.Updated {
						t.Errorf("%d users are before the checkpoint %+v", done, c)
					}
				})
				if c.Processed < previous.Processed || c.Elapsed < previous.Elapsed || c.Progress() < previous.Progress() || c.Progress() >= 100 || c.Total != 400 {
					t.Errorf("%+v (%d %%) follows %+v (%d %%)", c, c.Progress(), previous, previous.Progress())
				}
				previous = c
			}
			if result := b.do(t); result.Processed != 400 || result.Updated != 400 {
				t.Errorf("the result is %+v", result)
			}
			if previous.Processed == 0 {
				t.Error("no checkpoint was saved on the way")
			}
		})
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		processed, total int64
		want             int
	}{{0, 0, 0}, {0, 10, 0}, {1, 3, 33}, {999, 1000, 99}, {1000, 1000, 99}, {5000, 1000, 99}, {5, 0, 0}} {
		if got := (syncrun.Checkpoint{Processed: test.processed, Total: test.total}).Progress(); got != test.want {
			t.Errorf("%d of %d is %d %%, want %d", test.processed, test.total, got, test.want)
		}
	}
}

// windows are how many batches can be ahead of the saved checkpoint, with four writers: three for each writer, and more if doing them
// again costs little.
var windows = []struct {
	name    string
	work    syncrun.Work
	batches int
}{
	{"stamps", syncrun.Stamping{}, 50},
	{"other work", workFunc(func(context.Context, []syncrun.Record) error { return nil }), 12},
}

// TestWindowIsBounded holds up the first batch, and checks how far the others get.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	for _, window := range windows {
		t.Run(window.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 10_000)
				b.run.Work = window.work
				release := make(chan struct{})
				b.store.before = func(_ context.Context, operation string, records []syncrun.Record) error {
					if operation == "stamp" && records[0].State.(int) == 1 {
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
					// The other writers must not have waited for the first.
					if stamped := b.store.calls["stamp"]; stamped != window.batches {
						t.Errorf("%d batches were begun, want %d", stamped, window.batches)
					}
				})
				close(release)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestSaves counts how often a run saves: stamps after 250 ms or twelve batches, whichever is later, and other work after 250 ms or
// four batches, whichever is sooner, and whenever its window is full.
func TestSaves(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		window      int // of windows
		batch       time.Duration
		least, most int // saves of 2,000 batches, four at a time
	}{
		{0, time.Millisecond, 38, 45}, // whenever the window of 50 is full
		{0, 20 * time.Millisecond, 38, 45},
		{0, 200 * time.Millisecond, 160, 167},
		{1, time.Millisecond, 490, 1000}, // full, because the writes are slower than the work
		{1, 200 * time.Millisecond, 490, 1000},
	} {
		t.Run(fmt.Sprintf("%s of %s", windows[test.window].name, test.batch), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 20_000)
				b.run.Work = windows[test.window].work
				b.run.RangeSize = 20_000
				b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
					if operation == "stamp" {
						time.Sleep(test.batch)
					}
					return nil
				}
				b.do(t)
				if n := len(b.saved.all); n < test.least || n > test.most {
					t.Errorf("saved %d times, want %d to %d", n, test.least, test.most)
				}
			})
		})
	}
}

// TestCount checks that a run neither waits for the count of its records nor fails with it.
func TestCount(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		count func(context.Context) error
		full  bool
		total int64 // of the checkpoint in the middle
	}{
		{"at once", func(context.Context) error { return nil }, false, 200},
		{"slow", func(ctx context.Context) error { sleep(ctx, time.Second); return nil }, false, 200},
		{"hangs", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, false, 0},
		{"is refused", func(context.Context) error { return errors.New("not authorized") }, false, 0},
		{"is away", func(context.Context) error { return errGone }, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 200)
				b.run.Work, b.run.Writers = windows[1].work, 1
				b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
					switch operation {
					case "count":
						return test.count(ctx)
					case "stamp":
						sleep(ctx, time.Second)
					}
					return nil
				}
				if result := b.do(t); result.Processed != 200 || result.Updated != 200 || result.Elapsed > 25*time.Second {
					t.Errorf("the result is %+v", result)
				}
				if middle := b.saved.all[len(b.saved.all)/2]; middle.Total != test.total {
					t.Errorf("in the middle the total was %d, want %d", middle.Total, test.total)
				}
			})
		})
	}
}

// TestNoCountOfAFullRange checks that nothing is counted where the number is known.
func TestNoCountOfAFullRange(t *testing.T) {
	t.Parallel()
	b := setup(t, 100)
	pass := b.run.Pass
	pass.Selection.Full, pass.Range = true, syncrun.Range{Records: 100}
	end, err := pass.Do(t.Context())
	if err != nil || end.Processed != 100 || end.Total != 100 || b.store.calls["count"] != 0 {
		t.Errorf("%+v, %v, after %d counts", end, err, b.store.calls["count"])
	}
}

func TestSomeFail(t *testing.T) {
	t.Parallel()
	b := setup(t, 30)
	for _, i := range []int{0, 12, 29} {
		b.store.users[i].fails = errInvalid
	}
	if result := b.do(t); result.Processed != 30 || result.Updated != 27 || result.Errors != 3 {
		t.Errorf("the result is %+v", result)
	}
	want := []string{
		"User sync failed userId=id-1 username=user1 error=document failed validation",
		"User sync failed userId=id-13 username=user13 error=document failed validation",
		"User sync failed userId=id-30 username=user30 error=document failed validation",
	}
	if got := b.log.lines("User sync failed"); !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
	if got := b.log.lines("User synced successfully"); len(got) != 27 || slices.Contains(got, "User synced successfully userId=id-1 username=user1") {
		t.Errorf("logged %d users as synced", len(got))
	}
}

func TestAllFail(t *testing.T) {
	t.Parallel()
	b := setup(t, 30)
	for _, u := range b.store.users {
		u.fails = errInvalid
	}
	_, err := b.run.Do(t.Context())
	if !errors.Is(err, syncrun.ErrAllFailed) || !strings.Contains(err.Error(), errInvalid.Error()) {
		t.Errorf("%v", err)
	}
	c := b.saved.checkpoint(t)
	if c.After != nil || c.Processed != 0 || c.Errors != 0 {
		t.Errorf("the next attempt begins at %+v, want the beginning", c)
	}

	for _, u := range b.store.users {
		u.fails = nil
	}
	b.run.Resume = c
	if result := b.do(t); result.Processed != 30 || result.Updated != 30 || result.Errors != 0 {
		t.Errorf("then the result is %+v", result)
	}
}

// A few bad records fail no run, even if no other record is due.
func TestFewBadRecords(t *testing.T) {
	t.Parallel()
	for n, fails := range map[int]bool{1: false, 19: false, 20: true} {
		b := setup(t, n)
		for _, u := range b.store.users {
			u.fails = errInvalid
		}
		result, err := b.run.Do(t.Context())
		switch {
		case fails && !errors.Is(err, syncrun.ErrAllFailed):
			t.Errorf("of %d records all are bad: %+v, %v; want a failed attempt", n, result, err)
		case !fails && (err != nil || result.Processed != int64(n) || result.Errors != int64(n) || result.Updated != 0):
			t.Errorf("of %d records all are bad: %+v, %v; want a run that completes", n, result, err)
		}
	}
}

// TestAllFailInTwoAttempts kills the first attempt after its last record, before it can say that all records failed.
func TestAllFailInTwoAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t, 20)
	for _, u := range b.store.users {
		u.fails = errInvalid
	}
	b.run.Resume = syncrun.Checkpoint{After: b.store.users[19].key(), Total: 20, Processed: 20, Errors: 20}
	if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrAllFailed) {
		t.Errorf("%v", err)
	}
	if c := b.saved.checkpoint(t); c.After != nil {
		t.Errorf("the next attempt begins at %+v, want the beginning", c)
	}
}

func TestStoreIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"split", "scan", "next", "stamp"} {
		for _, test := range []struct {
			away time.Duration
			ok   bool
		}{{50 * time.Millisecond, true}, {30 * time.Second, true}, {57 * time.Second, true}, {time.Hour, false}} {
			t.Run(fmt.Sprintf("%s, for %s", operation, test.away), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := setup(t, 100)
					started := time.Now()
					b.store.before = func(_ context.Context, o string, _ []syncrun.Record) error {
						if o == operation && time.Since(started) < test.away {
							return errGone
						}
						return nil
					}
					result, err := b.run.Do(t.Context())
					if test.ok {
						if err != nil || result.Processed != 100 || result.Updated != 100 {
							t.Errorf("%+v, %v", result, err)
						}
						if len(b.log.lines("Database reachable again")) == 0 {
							t.Error("the log does not say that the database is back")
						}
						return
					}
					if !errors.Is(err, syncrun.ErrUnavailable) {
						t.Errorf("%v", err)
					}
					if waited := time.Since(started); waited < 55*time.Second || waited > time.Minute {
						t.Errorf("gave up after %s, the retry budget is a minute", waited)
					}
				})
			})
		}
	}
}

// TestRetryBudgetBeginsAnew has a store that is away over and over, each time for less than the retry budget.
func TestRetryBudgetBeginsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 400)
		started := time.Now()
		b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
			if time.Since(started)%time.Minute < 50*time.Second {
				return errGone
			}
			if operation == "stamp" {
				time.Sleep(4 * time.Second)
			}
			return nil
		}
		if result := b.do(t); result.Processed != 400 || result.Updated != 400 || result.Elapsed < 3*time.Minute {
			t.Errorf("the result is %+v", result)
		}
	})
}

func TestStoreRefuses(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"split", "scan", "next", "stamp"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			b := setup(t, 100)
			refused := errors.New("not authorized")
			b.store.before = func(_ context.Context, o string, _ []syncrun.Record) error {
				if o == operation {
					return refused
				}
				return nil
			}
			_, err := b.run.Do(t.Context())
			if !errors.Is(err, refused) || errors.Is(err, syncrun.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if n := b.store.calls[operation]; n > 4 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 10_000)
		b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		stop := make(chan struct{})
		time.AfterFunc(3050*time.Millisecond, func() { close(stop) })
		started := time.Now()
		b.run.Stop = stop
		if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrStopped) {
			t.Errorf("%v", err)
		}
		// The batches in flight, and one more if a writer was free just when the attempt was stopped.
		if waited := time.Since(started); waited > 5*time.Second {
			t.Errorf("stopped only after %s", waited)
		}
		c := b.saved.checkpoint(t)
		b.store.locked(func() {
			for _, u := range b.store.users {
				if is, want := u.stamped > 0, bytes.Compare(u.key(), c.After) <= 0; is != want {
					t.Fatalf("user %d is done: %v, before the checkpoint: %v", u.number, is, want)
				}
			}
		})
		b.run.Resume = c
		if result := b.do(t); result.Processed != 10_000 || result.Updated != 10_000 {
			t.Errorf("then the result is %+v", result)
		}
		if n, total := b.store.calls["count"], b.saved.checkpoint(t).Total; n != 1 || total != 10_000 {
			t.Errorf("counted %d times, and %d users in the end: the total is what the run counted first", n, total)
		}
		b.store.locked(func() {
			for _, u := range b.store.users {
				if u.stamped != 1 {
					t.Fatalf("user %d was updated %d times", u.number, u.stamped)
				}
			}
		})
	})
}

// TestStopWhileAReadHangs stops while the store does not answer. A stop does not wait for reads.
func TestStopWhileAReadHangs(t *testing.T) {
	t.Parallel()
	for _, hanging := range []string{"split", "scan", "next"} {
		t.Run(hanging, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 1000)
				b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
					if operation == hanging {
						<-ctx.Done()
					}
					return nil
				}
				stop := make(chan struct{})
				time.AfterFunc(time.Minute, func() { close(stop) })
				started := time.Now()
				b.run.Stop = stop
				if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrStopped) {
					t.Errorf("%v", err)
				}
				if waited := time.Since(started); waited > time.Minute+time.Second {
					t.Errorf("stopped only after %s", waited)
				}
			})
		})
	}
}

// TestStopBeforeTheLastBatch stops after the last batch was read, while no writer is free for it.
func TestStopBeforeTheLastBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 15)
		b.run.Writers = 1
		release := make(chan struct{})
		b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				<-release
			}
			return nil
		}
		stop, done := make(chan struct{}), make(chan error)
		go func() {
			b.run.Stop = stop
			_, err := b.run.Do(t.Context())
			done <- err
		}()
		synctest.Wait() // the writer has the first batch, the reader the second one, which is short
		close(stop)
		synctest.Wait()
		close(release)
		if err := <-done; !errors.Is(err, syncrun.ErrStopped) {
			t.Errorf("%v, with 5 of 15 users not done", err)
		}
		b.run.Resume = b.saved.checkpoint(t)
		if result := b.do(t); result.Processed != 15 || result.Updated != 15 {
			t.Errorf("then the result is %+v", result)
		}
	})
}

func TestStopWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"split", "scan", "next", "stamp"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 100)
				b.store.before = func(_ context.Context, o string, _ []syncrun.Record) error {
					if o == operation {
						return errGone
					}
					return nil
				}
				stop := make(chan struct{})
				time.AfterFunc(10*time.Second, func() { close(stop) })
				started := time.Now()
				b.run.Stop = stop
				if _, err := b.run.Do(t.Context()); !errors.Is(err, syncrun.ErrStopped) {
					t.Errorf("%v", err)
				}
				if waited := time.Since(started); waited != 10*time.Second {
					t.Errorf("stopped after %s, was asked to after 10 s", waited)
				}
			})
		})
	}
}

func TestContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 10_000)
		reason := errors.New("the lease is lost")
		b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				sleep(ctx, time.Second)
			}
			return nil
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3333*time.Millisecond, func() { cancel(reason) })
		started := time.Now()
		if _, err := b.run.Do(ctx); !errors.Is(err, reason) {
			t.Errorf("%v", err)
		}
		if waited := time.Since(started); waited != 3333*time.Millisecond {
			t.Errorf("ended after %s", waited)
		}
		if c := b.saved.checkpoint(t); c.Processed == 0 || c.Elapsed != 3333*time.Millisecond {
			t.Errorf("where it got to in the end is not saved: %+v", c)
		}
	})
}

func TestFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 10_000)
		b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				sleep(ctx, time.Second)
			}
			return nil
		}
		ctx, end := context.WithCancelCause(t.Context())
		b.run.Save = fencing(end, b.run.Save)
		time.AfterFunc(3*time.Second, func() { b.saved.fail(fmt.Errorf("saving: %w", errFenced)) })
		started := time.Now()
		if _, err := b.run.Do(ctx); !errors.Is(err, errFenced) {
			t.Errorf("%v", err)
		}
		ended := time.Now()
		// The first save after that notices it.
		if waited := ended.Sub(started); waited > 6*time.Second {
			t.Errorf("went on for %s", waited)
		}
		time.Sleep(time.Minute)
		if b.saved.failed != 1 {
			t.Errorf("tried to save %d times, want once", b.saved.failed)
		}
		b.store.locked(func() {
			if b.store.lately.After(ended) {
				t.Error("wrote after it had ended")
			}
		})
	})
}

func TestFencedWhileStopping(t *testing.T) {
	t.Parallel()
	b := setup(t, 100)
	ctx, end := context.WithCancelCause(t.Context())
	b.run.Save = fencing(end, b.run.Save)
	b.saved.fail(errFenced)
	stop := make(chan struct{})
	var once sync.Once
	b.store.before = func(_ context.Context, operation string, _ []syncrun.Record) error {
		if operation == "next" {
			once.Do(func() { close(stop) })
			return errGone
		}
		return nil
	}
	b.run.Stop = stop
	if _, err := b.run.Do(ctx); !errors.Is(err, syncrun.ErrStopped) || !errors.Is(context.Cause(ctx), errFenced) {
		t.Errorf("%v", err)
	}
	if len(b.log.lines("Could not save the run's last checkpoint")) > 0 {
		t.Error("the log calls it a failure to save")
	}
}

// TestSavingFails checks that an attempt that cannot save begins no more batches than can be done again.
func TestSavingFails(t *testing.T) {
	t.Parallel()
	for _, window := range windows {
		t.Run(window.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, 1000)
				b.run.Work = window.work
				b.saved.fail(errors.New("i/o timeout"))
				b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
					if operation == "stamp" {
						sleep(ctx, time.Second)
					}
					return nil
				}
				time.AfterFunc(20*time.Second, func() {
					b.store.locked(func() {
						if stamped := b.store.calls["stamp"]; stamped != window.batches {
							t.Errorf("%d batches were begun while nothing could be saved, want %d", stamped, window.batches)
						}
					})
					b.saved.fail(nil)
				})
				if result := b.do(t); result.Processed != 1000 || result.Updated != 1000 || result.Elapsed < 20*time.Second {
					t.Errorf("the result is %+v", result)
				}
				if n := len(b.log.lines("Could not save the run's checkpoint, trying again")); n != 1 {
					t.Errorf("logged it %d times, want once", n)
				}
			})
		})
	}
}

// TestAttemptsAddUp ends attempts in every way, at random times, until the run is done.
func TestAttemptsAddUp(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { attempts(t, rand.New(rand.NewPCG(seed, 2))) })
		})
	}
}

func attempts(t *testing.T, random *rand.Rand) {
	b := setup(t, 300+random.IntN(700))
	b.run.BatchSize, b.run.Writers, b.run.Workers = 1+random.IntN(40), 1+random.IntN(5), random.IntN(8)
	work := new(picky)
	if random.IntN(2) == 0 {
		work = &picky{tries: 1 + random.IntN(3), bad: []int{1 + random.IntN(300), 1 + random.IntN(300)}}
		b.run.Work = work
	}
	bad := func(u *user) bool { return u.fails != nil || slices.Contains(work.bad, u.number) }
	b.run.Selection.Full = random.IntN(2) == 0
	var want syncrun.Result
	for _, u := range b.store.users {
		switch random.IntN(10) {
		case 0:
			u.stamp = reference.Add(-freshness + 1)
		case 1:
			u.stamp = reference.Add(-freshness)
		case 2:
			u.fails = errInvalid
		}
		switch {
		case !u.due(b.run.Selection):
		case bad(u):
			want.Processed, want.Errors = want.Processed+1, want.Errors+1
		default:
			want.Processed, want.Updated = want.Processed+1, want.Updated+1
		}
	}
	for attempt := 1; ; attempt++ {
		if attempt > 100 {
			t.Fatal("does not come to an end")
		}
		broken := errors.New("broken")
		var failAt atomic.Int64
		b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
			if operation == "stamp" {
				sleep(ctx, 300*time.Millisecond)
			}
			switch failAt.Add(-1) {
			case 0:
				return broken
			case 20, 30:
				return errGone
			}
			return nil
		}
		b.saved.fail(nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := make(chan struct{})
		after := time.Duration(random.Int64N(int64(4 * time.Second)))
		var timer *time.Timer
		switch random.IntN(4) {
		case 0:
			timer = time.AfterFunc(after, func() { cancel(broken) })
		case 1:
			timer = time.AfterFunc(after, func() { close(stop) })
		case 2: // killed: nothing is saved any more
			timer = time.AfterFunc(after, func() { b.saved.fail(broken); cancel(broken) })
		case 3:
			timer = time.NewTimer(0)
			failAt.Store(1 + random.Int64N(1500))
		}
		b.run.Stop = stop
		result, err := b.run.Do(ctx)
		timer.Stop()
		cancel(nil)
		if err != nil {
			if !errors.Is(err, broken) && !errors.Is(err, syncrun.ErrStopped) {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
			time.Sleep(time.Second)
			previous := b.run.Resume
			b.run.Resume = b.saved.checkpoint(t)
			if c := b.run.Resume; c.Processed < previous.Processed || c.Progress() < previous.Progress() || c.Elapsed < previous.Elapsed {
				t.Errorf("attempt %d went back from %+v to %+v", attempt, previous, c)
			}
			continue
		}
		if result.Processed != want.Processed || result.Updated != want.Updated || result.Errors != want.Errors {
			t.Errorf("after %d attempts the result is %+v, want %+v", attempt, result, want)
		}
		for _, u := range b.store.users {
			if !bad(u) && u.stamped == 0 && (b.run.Selection.Full || !u.stamp.Equal(reference.Add(-freshness+1))) {
				t.Errorf("user %d was left out", u.number)
			}
		}
		return
	}
}

// bench is a store that does almost nothing.
type bench struct{ records []syncrun.Record }

func (b bench) EndOfRange(context.Context, []byte, int) ([]byte, error) { return nil, nil }

func (b bench) Count(context.Context, syncrun.Selection, syncrun.Range) (int64, error) {
	return int64(len(b.records)), nil
}

func (b bench) Scan(context.Context, syncrun.Selection, syncrun.Range) (syncrun.Cursor, error) {
	return &benchCursor{left: b.records}, nil
}

func (b bench) Stamp(_ context.Context, records []syncrun.Update, _ syncrun.Selection) (syncrun.Stamped, error) {
	return syncrun.Stamped{Matched: int64(len(records))}, nil
}

type benchCursor struct{ left []syncrun.Record }

func (c *benchCursor) Read(_ context.Context, records []syncrun.Record) (int, error) {
	n := copy(records, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *benchCursor) Close() {}

// BenchmarkDo measures the cost of a run for each record, without the store.
func BenchmarkDo(b *testing.B) {
	store := bench{}
	for _, u := range newMemory(100_000).users {
		store.records = append(store.records, syncrun.Record{Key: u.key(), ID: number(u.number), Name: "user"})
	}
	for _, batchSize := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint("batch ", batchSize), func(b *testing.B) {
			run := syncrun.Pass{
				Noun: "user", Store: store, Work: syncrun.Stamping{}, Selection: incremental, BatchSize: batchSize, Writers: 4,
				RetryBudget: time.Minute, Log: slog.New(slog.DiscardHandler),
				Save: func(context.Context, syncrun.Checkpoint, int) error { return nil },
			}
			b.ReportAllocs()
			for b.Loop() {
				result, err := run.Do(b.Context())
				if err != nil || result.Updated != int64(len(store.records)) {
					b.Fatal(result, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(store.records)), "ns/record")
		})
	}
}

// The retry budget begins with the first operation that fails, and ends one that hangs.
func TestRetryBudgetEndsACallThatHangs(t *testing.T) {
	t.Parallel()
	b := setup(t, 10)
	b.run.RetryBudget = 500 * time.Millisecond
	calls := 0
	b.store.before = func(ctx context.Context, operation string, _ []syncrun.Record) error {
		if operation != "scan" {
			return nil
		}
		if calls++; calls > 1 {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return errGone
	}
	begun := time.Now()
	_, err := b.run.Do(t.Context())
	if took := time.Since(begun); !errors.Is(err, syncrun.ErrUnavailable) || took > 10*time.Second || calls != 2 {
		t.Errorf("after %s and %d calls: %v", took, calls, err)
	}
}
