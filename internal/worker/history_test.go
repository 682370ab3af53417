package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncjob"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// runs returns the entries of runs in the history, oldest first.
func (b *testBundle) runs(t *testing.T) []jobs.Entry {
	t.Helper()
	list, err := b.Entries(t.Context(), b.user, jobs.MaxEntries)
	if err != nil {
		t.Fatal(err)
	}
	var runs []jobs.Entry
	for _, e := range list {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		if e.Entry.Kind == jobs.EntryRun {
			runs = append(runs, e.Entry)
		}
	}
	return runs
}

// awaitRun waits until the history has n entries of runs, and returns the last one.
func (b *testBundle) awaitRun(t *testing.T, n int) jobs.Entry {
	t.Helper()
	var runs []jobs.Entry
	testbed.Eventually(t, fmt.Sprint(n, " entries"), func() bool {
		runs = b.runs(t)
		return len(runs) >= n
	})
	if len(runs) > n {
		t.Fatalf("there are %d entries, want %d: %+v", len(runs), n, runs)
	}
	return runs[n-1]
}

// refusing is a Work that takes a while, and fails for each record with a number that this one divides.
type refusing int

func (r refusing) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	outcomes := make([]syncrun.Outcome, len(batch))
	for i, record := range batch {
		if int(record.ID.(number))%int(r) == 0 {
			outcomes[i].Err = errors.New("not welcome")
		}
	}
	return outcomes, wait(5*time.Millisecond)(ctx, batch)
}

// A run that is shared has an entry with its ranges, and which worker did which, and the records that failed in all of them.
func TestEntryOfASharedRun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const n, workers = 2000, 2
	store := &numbers{n: n, stamped: make(map[int]int)}
	for range workers {
		b.startKeeping(t, worker.Options{}, syncjob.New(store, syncjob.Options{
			Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 100, RetryBudget: time.Second, KeepFailed: syncrun.KeepNames,
			Work: func(*jobtype.Attempt) syncrun.Work { return refusing(15) },
		}))
	}
	testbed.Eventually(t, "all workers to be live", func() bool {
		live, err := b.Live(t.Context(), jobs.RoleWorker)
		return err == nil && live == workers
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	e := b.awaitRun(t, 1)
	if e.ID != id || e.State != jobs.StateCompleted || e.By.Kind != jobs.TriggeredByAPI || e.Attempt != 1 || len(e.EndedAttempts) != 1 ||
		*e.Counts != (jobs.RecordCounts{Processed: n, Updated: n - 133, Failed: 133}) || string(e.Data) != `{"syncType":"full"}` {
		t.Errorf("the entry is %+v, and counts %+v", e, e.Counts)
	}
	var result tasks.SyncResult
	if err := json.Unmarshal(e.Result, &result); err != nil || result.Errors != 133 {
		t.Errorf("the result is %s, %v", e.Result, err)
	}
	if e.RangesTotal != 20 || len(e.Ranges) != 20 {
		t.Fatalf("it has %d ranges of %d", len(e.Ranges), e.RangesTotal)
	}
	did := make(map[string]int)
	for i, r := range e.Ranges {
		did[r.Worker]++
		if r.Index != i || r.Outcome != jobs.OutcomeCompleted || r.Counts.Processed != 100 || r.Started.Before(e.Started) || r.Ended.Before(r.Started) ||
			r.Ended.After(e.At) {
			t.Errorf("range %d is %+v", i, r)
		}
	}
	if len(did) != workers || did[""] > 0 {
		t.Errorf("the workers did %v", did)
	}
	var want, got []string
	for i := 15; len(want) < jobs.MaxFailedRecords; i += 15 {
		want = append(want, fmt.Sprint(i))
	}
	for _, r := range e.FailedRecords {
		got = append(got, r.ID)
		if r.Reason != "not welcome" {
			t.Errorf("record %s failed because of %q", r.ID, r.Reason)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the failed records are %q, want %q", got, want)
	}
	b.wantNothingLeft(t)
}

// The list of failed records goes over attempts: the first one gets to the middle. The one that was retried by hand begins anew, and has
// the attempts of both.
func TestEntryOfSeveralAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var batches atomic.Int32
	store := &numbers{n: 50, stamped: make(map[int]int)}
	work := refusing(7)
	b.startKeeping(t, worker.Options{}, syncjob.New(store, syncjob.Options{
		Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 100, RetryBudget: time.Second, KeepFailed: syncrun.KeepIDs,
		Work: func(*jobtype.Attempt) syncrun.Work {
			return outcomesFunc(func(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
				if batch[0].ID.(number) == 31 && batches.Add(1) <= 3 { // of the first three attempts
					return nil, errors.New("told to")
				}
				return work.Do(ctx, batch)
			})
		},
	}))
	ctx := telemetry.ContinueTrace(t.Context(), map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	accepted, err := b.TriggerBy(ctx, b.user, &tasks.SyncPayload{SyncType: tasks.SyncFull}, jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "nightly"})
	if err != nil {
		t.Fatal(err)
	}
	failed := func(e jobs.Entry) (ids []string) {
		for _, r := range e.FailedRecords {
			ids = append(ids, r.ID)
		}
		return ids
	}
	first := b.awaitRun(t, 1)
	if first.State != jobs.StateFailed || first.By.Key != "nightly" || first.Error != "working on numbers: told to" || first.Attempt != 3 || len(first.EndedAttempts) != 3 ||
		first.TraceID != "0af7651916cd43dd8448eb211c80319c" || first.Counts == nil || first.Counts.Processed != 30 ||
		!slices.Equal(failed(first), []string{"7", "14", "21", "28"}) {
		t.Errorf("the first entry is %+v, and counts %+v", first, first.Counts)
	}
	b.await(t, accepted.ID.String(), asynq.TaskStateArchived)
	if err := b.Retry(t.Context(), accepted.ID, "ops"); err != nil {
		t.Fatal(err)
	}
	second := b.awaitRun(t, 2)
	if second.ID != first.ID || !second.At.After(first.At) || second.State != jobs.StateCompleted || second.By.Kind != jobs.TriggeredByRetry ||
		second.By.Key != "ops" || second.Attempt != 1 || len(second.EndedAttempts) != 4 || second.Counts.Processed != 50 ||
		!slices.Equal(failed(second), []string{"7", "14", "21", "28", "35", "42", "49"}) {
		t.Errorf("the second entry is %+v, and counts %+v", second, second.Counts)
	}
}

// outcomesFunc is a Work.
type outcomesFunc func(context.Context, []syncrun.Record) ([]syncrun.Outcome, error)

func (f outcomesFunc) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	return f(ctx, batch)
}

// Ends that no handler has a part in have an entry, too.
func TestEntryWithoutAHandler(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		begin func(*testing.T, *testBundle) tasks.RunID
		state jobs.State
		error string
	}{
		"refused": {
			func(t *testing.T, b *testBundle) tasks.RunID {
				id := tasks.TriggerID(b.user.Name, time.Now())
				client := asynq.NewClientFromRedisClient(b.rdb)
				if _, err := client.EnqueueContext(t.Context(), b.user.NewTask(id, []byte("nonsense"), nil)); err != nil {
					t.Fatal(err)
				}
				return id
			},
			jobs.StateFailed, "invalid payload",
		},
		"panicked": {
			func(t *testing.T, b *testBundle) tasks.RunID {
				id, err := tasks.ParseRunID(b.trigger(t, "user-sync", tasks.SyncFull))
				if err != nil {
					t.Fatal(err)
				}
				return id
			},
			jobs.StateFailed, "panic: told to",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(d *tasks.Definition) { d.Attempts = 1 })
			id := c.begin(t, b)
			b.startKeeping(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) { panic("told to") })
			e := b.awaitRun(t, 1)
			if e.ID != id.String() || e.State != c.state || !strings.Contains(e.Error, c.error) || len(e.EndedAttempts) != 1 || e.Started.IsZero() ||
				(e.Data == nil) != (name == "refused") {
				t.Errorf("the entry is %+v", e)
			}
			b.await(t, id.String(), asynq.TaskStateArchived)
		})
	}
}

// The entry of a run that is cancelled in the middle has what was done until then.
func TestEntryOfACancelledRun(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"in one piece": 1000, "shared": 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			b.KeepHistory()
			reached := make(chan struct{}, 100)
			store := &numbers{n: 90, stamped: make(map[int]int)}
			work := refusing(7)
			b.startKeeping(t, worker.Options{Concurrency: 1}, syncjob.New(store, syncjob.Options{
				Noun: "number", BatchSize: 10, Writers: 1, RangeSize: size, RetryBudget: time.Second, KeepFailed: syncrun.KeepNames,
				Work: func(*jobtype.Attempt) syncrun.Work {
					return outcomesFunc(func(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
						if batch[0].ID.(number) == 61 {
							reached <- struct{}{}
							<-ctx.Done()
							return nil, context.Cause(ctx)
						}
						return work.Do(ctx, batch)
					})
				},
			}))
			id := b.trigger(t, "user-sync", tasks.SyncFull)
			testbed.Receive(t, "the run to get to record 61", reached)
			testbed.Eventually(t, "what was done before to be saved", func() bool {
				checkpoint, _ := b.rdb.HGet(t.Context(), "codex-jobs:{user-sync}:run:"+id, "checkpoint").Result()
				ended, _ := b.rdb.HGet(t.Context(), "codex-jobs:{user-sync}:ranges:"+id, "ended").Int()
				return strings.Contains(checkpoint, `"processed":60`) || ended >= 3
			})
			b.cancel(t, id)
			e := b.awaitRun(t, 1)
			var failed []string
			for _, r := range e.FailedRecords {
				failed = append(failed, r.ID)
			}
			if e.State != jobs.StateCancelled || e.Counts == nil || e.Counts.Processed < 60 || len(failed) < 8 ||
				!slices.Equal(failed[:8], []string{"7", "14", "21", "28", "35", "42", "49", "56"}) {
				t.Errorf("the entry is %+v, and counts %+v", e, e.Counts)
			}
			b.await(t, id, asynq.TaskStateArchived)
		})
	}
}
