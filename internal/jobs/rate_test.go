package jobs_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// TestRateHoldsInEveryWindow has more callers than the limit allows, and calls that take different times to arrive and to end.
// It counts when they arrive, as the one who is called does.
func TestRateHoldsInEveryWindow(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	def := b.def
	def.Rate = tasks.Rate{Calls: 5, Per: 300 * time.Millisecond}
	var mu sync.Mutex
	var arrived []time.Time
	var callers sync.WaitGroup
	started := time.Now()
	for caller := range 8 {
		callers.Go(func() {
			for call := range 4 {
				end, err := b.TakePermit(ctx, def)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration((caller*7+call*13)%40) * time.Millisecond) // on its way
				mu.Lock()
				arrived = append(arrived, time.Now())
				mu.Unlock()
				time.Sleep(time.Duration((caller+call)%3) * 10 * time.Millisecond) // at work
				end()
			}
		})
	}
	callers.Wait()
	slices.SortFunc(arrived, time.Time.Compare)
	for i := def.Rate.Calls; i < len(arrived); i++ {
		if within := arrived[i].Sub(arrived[i-def.Rate.Calls]); within < def.Rate.Per {
			t.Errorf("%d calls arrived within %s", def.Rate.Calls+1, within)
		}
	}
	// 32 calls in bursts of 5 take at least six windows. More than three times that would be a limiter that gives too little.
	if took := time.Since(started); took < 6*def.Rate.Per {
		t.Errorf("%d calls took %s", len(arrived), took)
	} else {
		t.Logf("%d calls took %s, of which a limit of %d in %s needs %s", len(arrived), took, def.Rate.Calls, def.Rate.Per, 6*def.Rate.Per)
	}
}

func TestRateWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	def := b.def
	def.Rate = tasks.Rate{Calls: 1, Per: time.Hour}
	end, err := b.TakePermit(ctx, def)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	because := errors.New("stopped")
	waiting, cancel := context.WithCancelCause(ctx)
	cancel(because)
	if _, err := b.TakePermit(waiting, def); !errors.Is(err, because) {
		t.Errorf("got %v, want the context's cause", err)
	}
}

// TestPermitOfALostWorker takes a permit, and tells nothing more of it.
func TestPermitOfALostWorker(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	def := b.def
	def.Rate = tasks.Rate{Calls: 1, Per: 50 * time.Millisecond}
	end, err := b.TakePermit(ctx, def)
	if err != nil {
		t.Fatal(err)
	}
	defer end() // the test ends before a lost worker's permit would
	key := "codex-jobs:{user-sync}:rate"
	permits, err := b.rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
	if err != nil || len(permits) != 1 {
		t.Fatalf("%v, %v", permits, err)
	}
	if lasts := time.Until(time.UnixMilli(int64(permits[0].Score))); lasts < 20*time.Second || lasts > 31*time.Second {
		t.Errorf("the permit lasts for %s", lasts)
	}
	if ttl := b.rdb.PTTL(ctx, key).Val(); ttl <= 0 {
		t.Errorf("the permits never expire: %s", ttl)
	}
}
