package jobs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// wantCounts checks what an active run shows of its records.
func (b *testBundle) wantCounts(t *testing.T, when string, id tasks.RunID, want *jobs.RecordCounts, total int64) {
	t.Helper()
	job, err := b.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if job.State != jobs.StateActive || job.Total != total || (job.Counts == nil) != (want == nil) || want != nil && *job.Counts != *want {
		t.Errorf("%s: %s, counts %+v, total %d; want %+v, %d", when, job.State, job.Counts, job.Total, want, total)
	}
}

// startRun triggers a run, and begins an attempt at it, as a worker does.
func (b *testBundle) startRun(t *testing.T, syncType string) *jobs.RunState {
	t.Helper()
	ctx := t.Context()
	id := b.trigger(ctx, t, syncType).ID
	if taken := b.take(ctx, t); taken != id.String() {
		t.Fatalf("took %s", taken)
	}
	b.lease(ctx, t, id.String(), time.Now().Add(30*time.Second))
	run, err := b.StartRun(ctx, id, syncType, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An active run shows what it has done to its records, as of its last checkpoint.
func TestCountsOfAnActiveRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	run := b.startRun(t, tasks.SyncFull)
	b.wantCounts(t, "before the first checkpoint", run.ID(), nil, 0)
	must(t, run.Save(ctx, nil, jobs.Progress{Percent: 5}))
	b.wantCounts(t, "of a job that counts nothing", run.ID(), nil, 0)
	must(t, run.Save(ctx, nil, jobs.Progress{Percent: 10, Counts: &jobs.RecordCounts{Processed: 30, Updated: 28, Failed: 2}}))
	b.wantCounts(t, "while the total is not known", run.ID(), &jobs.RecordCounts{Processed: 30, Updated: 28, Failed: 2}, 0)
	must(t, run.Save(ctx, nil, jobs.Progress{Percent: 20, Counts: &jobs.RecordCounts{Processed: 60, Updated: 58, Failed: 2}, Total: 300}))
	b.wantCounts(t, "later", run.ID(), &jobs.RecordCounts{Processed: 60, Updated: 58, Failed: 2}, 300)
	if list, _, err := b.List(ctx, jobs.Filter{Jobs: b.Registry().All(), States: []jobs.State{jobs.StateActive}, Page: 1, PageSize: 10}); err != nil ||
		len(list) != 1 || list[0].Counts == nil || list[0].Counts.Processed != 60 || list[0].Total != 300 {
		t.Errorf("in a list: %+v, %v", list, err)
	}
}

// Of a split run the counts are the sum over its ranges, whatever becomes of their attempts.
func TestCountsOfASplitRun(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	run := b.startRun(t, tasks.SyncIncremental)
	for i := range 3 {
		must(t, run.AddRange(ctx, i, []byte("spec"), i == 2))
	}
	open := func(index int) *jobs.RangeState {
		t.Helper()
		s, err := b.OpenRange(ctx, tasks.RangeID{Run: run.ID(), Index: index}, jobs.NewOwner("host:1:abc"))
		must(t, err)
		return s
	}
	b.wantCounts(t, "before the ranges begin", run.ID(), nil, 0)
	first := open(0)
	for range 2 { // the second time as if the answer to the first were lost
		must(t, first.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 10, Updated: 9, Failed: 1}, Total: 50}))
	}
	b.wantCounts(t, "with one range", run.ID(), &jobs.RecordCounts{Processed: 10, Updated: 9, Failed: 1}, 0)
	second := open(1)
	must(t, second.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 5, Updated: 5}}))
	must(t, second.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 20, Updated: 20}, Total: 40}))
	b.wantCounts(t, "with two ranges", run.ID(), &jobs.RecordCounts{Processed: 30, Updated: 29, Failed: 1}, 0)

	successor := open(0) // which does again what was not saved, and so counts less
	must(t, successor.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 8, Updated: 8}, Total: 50}))
	if err := first.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 50}}); !errors.Is(err, jobs.ErrFenced) {
		t.Errorf("a former owner's checkpoint: %v", err)
	}
	b.wantCounts(t, "with a rescued range", run.ID(), &jobs.RecordCounts{Processed: 28, Updated: 28}, 0)

	third := open(2)
	must(t, third.Save(ctx, nil, jobs.Progress{Counts: &jobs.RecordCounts{Processed: 1, Updated: 1}, Total: 7}))
	b.wantCounts(t, "when all ranges have counted", run.ID(), &jobs.RecordCounts{Processed: 29, Updated: 29}, 50+40+7)
	third.Counts = &jobs.RecordCounts{Processed: 6, Updated: 6}
	for range 2 {
		must(t, third.Complete(ctx, nil))
	}
	b.wantCounts(t, "with one range that had less than it thought", run.ID(), &jobs.RecordCounts{Processed: 34, Updated: 34}, 50+40+6)
	second.Counts = &jobs.RecordCounts{Processed: 21, Updated: 20, Failed: 1}
	must(t, second.Fail(ctx, errors.New("told to")))
	b.wantCounts(t, "with one that failed", run.ID(), &jobs.RecordCounts{Processed: 35, Updated: 34, Failed: 1}, 50+40+6)

	must(t, run.Save(ctx, nil, jobs.Progress{Percent: 30, Total: 100}))
	b.wantCounts(t, "when the run itself has counted", run.ID(), &jobs.RecordCounts{Processed: 35, Updated: 34, Failed: 1}, 100)
	must(t, run.DiscardRanges(ctx))
	must(t, run.Save(ctx, nil, jobs.Progress{}))
	b.wantCounts(t, "when it begins again", run.ID(), nil, 0)
}
