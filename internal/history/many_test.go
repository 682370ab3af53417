package history_test

import (
	"slices"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// ended returns the entries of n ticks of each of three job types, newest first, of which every hundredth failed.
func ended(n int) (entries []jobs.Entry) {
	for i := range n {
		for k, job := range []string{"user-sync", "project-sync", "issue-sync"} {
			e := run(job, 20*i)
			e.At = e.At.Add(-time.Duration(k) * time.Second)
			if i%100 == 99 {
				e.State, e.Error, e.Result = jobs.StateFailed, "counting the users to sync, tried for 1m0s: server selection timeout", nil
				e.FailedRecords = []jobs.FailedRecord{{ID: "65a1f0c2e4b0a1b2c3d4e5f6", Name: "amber-otter", Reason: "no"}}
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// The most that the lists in Redis can have for one job type, moved at once, listed by pages and by filters.
func TestTenThousandEntries(t *testing.T) {
	t.Parallel()
	b, q := setup(t), setupQueues(t)
	all := ended(jobs.MaxEntries/3 + 1)[:jobs.MaxEntries]
	oldestFirst := slices.Clone(all)
	slices.Reverse(oldestFirst)
	for some := range slices.Chunk(oldestFirst, 1000) {
		q.add(t, some...)
	}
	move(t, q, b.store)
	testbed.Within(t, 5*testbed.WaitLimit, "empty lists", func() bool {
		return q.empty(t, "user-sync") && q.empty(t, "project-sync") && q.empty(t, "issue-sync")
	})
	var got []string
	filter := history.Filter{Limit: 3000}
	for {
		page, next, err := b.store.List(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			got = append(got, e.ID)
		}
		if next.String() == "" {
			break
		}
		filter.After = next
	}
	var want, failed, wantedJob []string
	for _, e := range all {
		want = append(want, e.ID)
		if e.State == jobs.StateFailed {
			failed = append(failed, e.ID)
		}
		if e.Job == "issue-sync" {
			wantedJob = append(wantedJob, e.ID)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed are %d entries, want %d in their order", len(got), len(want))
	}
	if ids := b.list(t, history.Filter{State: jobs.StateFailed, Limit: 1000}); !slices.Equal(ids, failed) {
		t.Errorf("%d have failed, want %d", len(ids), len(failed))
	}
	if ids := b.list(t, history.Filter{Text: "Amber", Limit: 1000}); !slices.Equal(ids, failed) {
		t.Errorf("%d have the text, want %d", len(ids), len(failed))
	}
	if ids := b.list(t, history.Filter{Job: "issue-sync", To: all[5000].At.Add(time.Second), Limit: 10}); !slices.Equal(ids, wantedJob[1666:1676]) {
		t.Errorf("those of a job type from some time on are %q, want %q", ids, wantedJob[1666:1676])
	}
}

// Ninety days of ticks of three job types, every 20 minutes, by each filter. The promise for a MongoDB with indexes is 50 ms.
func BenchmarkList(b *testing.B) {
	bundle := setup(b)
	if err := bundle.store.EnsureIndexes(b.Context()); err != nil {
		b.Fatal(err)
	}
	all := ended(90 * 24 * 3)
	for some := range slices.Chunk(all, 100) {
		bundle.put(b, some...)
	}
	middle := all[len(all)/2].At
	_, after, err := bundle.store.List(b.Context(), history.Filter{Limit: 20, To: middle})
	if err != nil {
		b.Fatal(err)
	}
	for name, filter := range map[string]history.Filter{
		"all":           {},
		"job":           {Job: "user-sync"},
		"state":         {State: jobs.StateFailed},
		"job and state": {Job: "user-sync", State: jobs.StateFailed},
		"kind":          {Kind: jobs.EntryRun},
		"none":          {Kind: jobs.EntryPause},
		"time":          {From: middle.Add(-24 * time.Hour), To: middle},
		"cursor":        {After: after},
		"text":          {Text: "timeout"},
		"text nowhere":  {Text: "nowhere"},
	} {
		b.Run(name, func(b *testing.B) {
			filter.Limit = 20
			for b.Loop() {
				if _, _, err := bundle.store.List(b.Context(), filter); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if _, err := bundle.store.Get(b.Context(), all[777].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
