package jobs_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

// Workers take part whose database is that of those who were there first.
func TestTakePart(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	wantExcluded := func(want int) {
		t.Helper()
		if n, err := b.Excluded(ctx); err != nil || n != want {
			t.Errorf("%d are excluded, %v; want %d", n, err, want)
		}
	}
	want := func(worker, database string, patient, want bool, agreed string) {
		t.Helper()
		if takesPart, got, err := b.TakePart(ctx, worker, jobs.Terms{Database: database}, patient); err != nil || takesPart != want || got != agreed {
			t.Errorf("%s on %s: %v, %q, %v; want %v, %q", worker, database, takesPart, got, err, want, agreed)
		}
	}
	withdraw := func(worker string) {
		t.Helper()
		if err := b.Withdraw(ctx, worker); err != nil {
			t.Fatal(err)
		}
	}
	wantExcluded(0)
	want("a1", "A", false, true, "A")
	want("b1", "B", false, false, "A")
	want("a2", "A", false, true, "A")
	want("b1", "B", true, false, "A")
	wantExcluded(1)

	// A rolling update: the old ones leave one by one, and only then the new ones take part.
	withdraw("a1")
	want("b1", "B", true, false, "A")
	withdraw("a2")
	want("b1", "B", true, true, "B")
	wantExcluded(0)
	want("a3", "A", false, false, "B")
	wantExcluded(1)
	withdraw("a3")
	wantExcluded(0)

	// The database of the only one has become another one.
	want("b1", "C", false, true, "C")

	// One that died keeps the others out for 15 s by Redis' clock.
	died := func(ago time.Duration) {
		t.Helper()
		now, err := b.rdb.Time(ctx).Result()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.rdb.ZAdd(ctx, "codex-jobs:{database}:members", redis.Z{Member: "b1", Score: float64(now.Add(-ago).UnixMilli())}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	died(10 * time.Second)
	want("d1", "D", true, false, "C")
	died(16 * time.Second)
	want("d1", "D", true, true, "D")

	// After Redis has lost all, those that took part are in no hurry to be the first.
	if err := b.rdb.FlushDB(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	want("e1", "E", true, false, "")
	want("d1", "D", false, true, "D")
	want("e1", "E", false, false, "D")
}

// A run that goes on on another database starts over there, with what it had counted.
func TestRunOnAnotherDatabase(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, "full").ID
	start := func(database, owner string) (checkpoint string, over bool) {
		t.Helper()
		if _, _, err := b.TakePart(ctx, "worker", jobs.Terms{Database: database}, false); err != nil {
			t.Fatal(err)
		}
		run, err := b.StartRun(ctx, id, "full", owner)
		if err != nil {
			t.Fatal(err)
		}
		checkpoint = string(run.Checkpoint)
		if err := run.Save(ctx, []byte(owner), jobs.Progress{Percent: 50}); err != nil {
			t.Fatal(err)
		}
		if err := run.AddRange(ctx, 0, []byte(owner), false); err != nil && checkpoint == "" {
			t.Error(err)
		}
		return checkpoint, run.StartsOver
	}
	for _, step := range []struct {
		database, owner, checkpoint string
		over                        bool
	}{{"A", "1", "", false}, {"A", "2", "1", false}, {"B", "3", "", true}, {"B", "4", "3", false}} {
		if checkpoint, over := start(step.database, step.owner); checkpoint != step.checkpoint || over != step.over {
			t.Errorf("on %s attempt %s found %q, %v", step.database, step.owner, checkpoint, over)
		}
	}
}
