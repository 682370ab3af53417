package syncrun_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// indexed is a store that finds few records at once.
type indexed struct {
	*memory
	few   *memory
	found bool
	err   error
	asked int
}

func (i *indexed) Few(context.Context, syncrun.Selection) (syncrun.Store, bool, error) {
	i.asked++
	return i.few, i.found, i.err
}

// TestFewDueRecords checks that a run that finds few records does nothing with all the others, and that any other run is as without an
// index.
func TestFewDueRecords(t *testing.T) {
	t.Parallel()
	const n, due = 100, 7
	for name, test := range map[string]struct {
		few, full bool
		err       error
		after     int // the checkpoint of an earlier attempt
		asked     int
	}{
		"few":                   {few: true, asked: 1},
		"few, after a failure":  {few: true, after: 3, asked: 1},
		"many":                  {asked: 1},
		"many, after a failure": {after: 3, asked: 1},
		"the index is gone":     {err: errors.New("hint provided does not correspond to an existing index"), asked: 1},
		"the store is away":     {err: errGone, asked: 1},
		"full":                  {few: true, full: true},
		"full, after a failure": {few: true, full: true, after: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, n)
			b.run.Selection.Full, b.run.RangeSize = test.full, 2*n
			for i, u := range b.store.users {
				if i >= due {
					u.stamp = reference.Add(-freshness / 2)
				}
			}
			few := newMemory(0)
			few.users = b.store.users[:due]
			store := &indexed{memory: b.store, few: few, found: test.few && test.err == nil, err: test.err}
			b.run.Store = store
			if test.after > 0 {
				b.run.Resume = syncrun.Checkpoint{After: b.store.users[test.after-1].key(), Total: due, Processed: int64(test.after), Updated: int64(test.after)}
			}
			result := b.do(t)
			want := int64(due)
			if test.full {
				want = n
			}
			if result.Processed != want || result.Updated != want {
				t.Errorf("the result is %+v, want %d", result, want)
			}
			for i, u := range b.store.users {
				stamped := i >= test.after && (i < due || test.full)
				if (u.stamped == 1) != stamped || u.stamped > 1 {
					t.Errorf("user %d was updated %d times", u.number, u.stamped)
				}
			}
			if store.asked != test.asked {
				t.Errorf("asked for few %d times, want %d", store.asked, test.asked)
			}
			used := test.few && !test.full
			if touched := b.store.calls["split"]+b.store.calls["count"]+b.store.calls["scan"] > 0; touched == used {
				t.Errorf("went through all records: %v", b.store.calls)
			}
			if (few.calls["scan"] > 0) != used {
				t.Errorf("went through the few: %v", few.calls)
			}
			if warned := len(b.log.lines("Could not use the index, reading all users instead")) > 0; warned != (test.err != nil) {
				t.Errorf("it warned: %v", warned)
			}
		})
	}
}

// A run that is split already goes on with its ranges, even if by now few records are due.
func TestSplitRunIsNotFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, 50)
		b.run.RangeSize = 20
		store := &indexed{memory: b.store, few: newMemory(0)}
		b.run.Store = store
		defer b.crew(t.Context(), 1)()
		for range 2 { // the second attempt finds all ranges ended
			if result := b.do(t); result.Processed != 50 || store.asked != 1 || len(b.ranges.list) != 3 {
				t.Errorf("processed %d, asked for few %d times, and split into %d ranges", result.Processed, store.asked, len(b.ranges.list))
			}
			store.found = true
		}
	})
}
