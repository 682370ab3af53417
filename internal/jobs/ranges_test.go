package jobs_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := tasks.TriggerID(b.def.Name, time.Now())
	run, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if split, err := run.Split(ctx); err != nil || split.Ranges != 0 || split.Complete || len(split.Last) != 0 {
		t.Errorf("before it is split: %+v, %v", split, err)
	}
	for i := range 3 {
		for range 2 { // the second time as if the answer to the first were lost
			if err := run.AddRange(ctx, i, []byte(strconv.Itoa(i)), i == 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, wrong := range []struct {
		index int
		spec  string
	}{{1, "another"}, {4, "4"}} {
		if err := run.AddRange(ctx, wrong.index, []byte(wrong.spec), false); !errors.Is(err, jobs.ErrFenced) {
			t.Errorf("range %d, %q: %v, want it refused", wrong.index, wrong.spec, err)
		}
	}

	open := func(index int) *jobs.RangeState {
		t.Helper()
		s, err := b.OpenRange(ctx, tasks.RangeID{Run: id, Index: index}, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := open(0)
	must(first.Save(ctx, []byte("a"), jobs.Progress{Percent: 50}))
	must(first.Save(ctx, []byte("b"), jobs.Progress{Percent: 40})) // progress may turn out to be less
	must(first.Release(ctx))
	again := open(0)
	if again.Rescued || string(again.Checkpoint) != "b" || string(again.Spec) != "0" || again.Started.IsZero() {
		t.Errorf("a range that was released: %+v", again)
	}
	successor := open(0)
	if !successor.Rescued || successor.Rescues != 1 {
		t.Errorf("a range of a dead worker: %+v", successor)
	}
	for what, err := range map[string]error{
		"save": again.Save(ctx, []byte("late"), jobs.Progress{Percent: 99}), "give back": again.Release(ctx),
		"complete": again.Complete(ctx, []byte("late")), "fail": again.Fail(ctx, errors.New("late")),
	} {
		if !errors.Is(err, jobs.ErrFenced) || errors.Is(err, jobs.ErrNoRange) {
			t.Errorf("%s by a former owner: %v", what, err)
		}
	}
	if split, err := run.Split(ctx); err != nil || split.Ranges != 3 || !split.Complete || string(split.Last) != "2" || split.Ended != 0 || split.Progress != 40/3 {
		t.Errorf("in the middle: %+v, %v", split, err)
	}
	for range 2 {
		must(successor.Complete(ctx, []byte("all")))
	}
	if err := successor.Save(ctx, []byte("late"), jobs.Progress{Percent: 50}); !errors.Is(err, jobs.ErrNoRange) { // sent before that, and arrived after it
		t.Errorf("saving a range that has ended: %v", err)
	}
	if _, err := b.OpenRange(ctx, tasks.RangeID{Run: id}, jobs.NewOwner("host:1:abc")); !errors.Is(err, jobs.ErrNoRange) {
		t.Errorf("opening a range that has ended: %v", err)
	}
	second := open(1)
	must(second.FailAttempt(ctx))
	if second = open(1); second.Failures != 1 || second.Rescued {
		t.Errorf("after a failed attempt: %+v", second)
	}
	must(second.Save(ctx, []byte("half"), jobs.Progress{Percent: 50}))
	must(second.Fail(ctx, errors.New("a reason")))
	if split, err := run.Split(ctx); err != nil || split.Ended != 2 || split.Progress != 200/3 {
		t.Errorf("with two ended: %+v, %v", split, err)
	}
	ranges, err := run.Ranges(ctx, 0)
	if err != nil || len(ranges) != 3 {
		t.Fatalf("%+v, %v", ranges, err)
	}
	if r := ranges[0]; string(r.Checkpoint) != "all" || !r.Ended || r.Failure != "" {
		t.Errorf("the first: %+v", r)
	}
	if r := ranges[1]; string(r.Checkpoint) != "half" || !r.Ended || r.Failure != "a reason" {
		t.Errorf("the second: %+v", r)
	}
	if r := ranges[2]; r.Ended || len(r.Checkpoint) > 0 {
		t.Errorf("the third: %+v", r)
	}

	third := open(2)
	must(run.Complete(ctx, nil))
	if err := third.Save(ctx, nil, jobs.Progress{Percent: 1}); !errors.Is(err, jobs.ErrNoRange) {
		t.Errorf("saving when the run has ended: %v", err)
	}
	if n, err := b.rdb.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("%d keys are left, %v", n, err)
	}
}

// A run can have any number of ranges. They are read a thousand at a time.
func TestManyRanges(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	run, err := b.OpenRun(ctx, tasks.TriggerID(b.def.Name, time.Now()), jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 2345
	for i := range n {
		if err := run.AddRange(ctx, i, []byte("spec"), i == n-1); err != nil {
			t.Fatal(err)
		}
	}
	var parts []int
	for from := 0; ; {
		part, err := run.Ranges(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		parts = append(parts, len(part))
		from += len(part)
	}
	if want := []int{1000, 1000, 345}; !slices.Equal(parts, want) {
		t.Errorf("read in parts of %v, want %v", parts, want)
	}
	if beyond, err := run.Ranges(ctx, n+1); err != nil || len(beyond) > 0 {
		t.Errorf("beyond the last: %v, %v", beyond, err)
	}
}

// A fenced attempt cannot split the run any more.
func TestRangesOfAFencedRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := tasks.TriggerID(b.def.Name, time.Now())
	old, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if err := old.AddRange(ctx, 0, []byte("0"), true); !errors.Is(err, jobs.ErrFenced) {
		t.Errorf("adding a range: %v", err)
	}
	if err := old.DiscardRanges(ctx); !errors.Is(err, jobs.ErrFenced) {
		t.Errorf("discarding: %v", err)
	}
}

func TestEnqueueRangeOnce(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := tasks.RangeID{Run: tasks.TriggerID(b.def.Name, time.Now()), Index: 3}
	for range 3 {
		if err := b.EnqueueRange(ctx, b.def, id, []byte(`{"syncType":"full"}`)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := b.inspector.ListPendingTasks(b.def.RangeQueue())
	if err != nil || len(list) != 1 || list[0].ID != id.String() || string(list[0].Payload) != `{"syncType":"full"}` {
		t.Errorf("%+v, %v", list, err)
	}
	if status, err := b.Status(ctx, b.def); err != nil || status.Counts != (jobs.Counts{}) {
		t.Errorf("a range counts as a job: %+v, %v", status.Counts, err)
	}
}

// The end of the last range is announced, and no other.
func TestEndOfAllRangesIsAnnounced(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]func(*jobs.RangeState) error{
		"completed": func(s *jobs.RangeState) error { return s.Complete(t.Context(), []byte("all")) },
		"failed":    func(s *jobs.RangeState) error { return s.Fail(t.Context(), errors.New("a reason")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setup(t)
			id := tasks.TriggerID(b.def.Name, time.Now())
			run, err := b.OpenRun(ctx, id, jobs.NewOwner("host:1:abc"))
			if err != nil {
				t.Fatal(err)
			}
			subscription := b.rdb.Subscribe(ctx, b.Channel())
			defer subscription.Close()
			if _, err := subscription.Receive(ctx); err != nil { // that it is subscribed
				t.Fatal(err)
			}
			heard := subscription.Channel()
			end := func(index int, f func(*jobs.RangeState) error) {
				t.Helper()
				s, err := b.OpenRange(ctx, tasks.RangeID{Run: id, Index: index}, jobs.NewOwner("host:1:abc"))
				if err == nil {
					err = f(s)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			complete := func(s *jobs.RangeState) error { return s.Complete(ctx, nil) }
			for i := range 2 {
				if err := run.AddRange(ctx, i, []byte(strconv.Itoa(i)), false); err != nil {
					t.Fatal(err)
				}
				end(i, complete) // all so far, but more can follow
			}
			for i := 2; i < 4; i++ {
				if err := run.AddRange(ctx, i, []byte(strconv.Itoa(i)), i == 3); err != nil {
					t.Fatal(err)
				}
			}
			end(3, complete)
			before := "before the end of " + run.RangesEnded()
			if err := b.rdb.Publish(ctx, b.Channel(), before).Err(); err != nil {
				t.Fatal(err)
			}
			end(2, last)
			for _, want := range []string{before, run.RangesEnded()} {
				got := testbed.Receive(t, "an announcement", heard)
				for !strings.Contains(got.Payload, run.RangesEnded()) { // of another test: a channel has no database
					got = testbed.Receive(t, "an announcement", heard)
				}
				if got.Payload != want {
					t.Fatalf("heard %q, want %q", got.Payload, want)
				}
			}
		})
	}
}
