package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func (b *testBundle) cancel(t *testing.T, id string) (removed bool) {
	t.Helper()
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	removed, err = b.Cancel(t.Context(), run, jobs.Trigger{})
	if err != nil {
		t.Fatal(err)
	}
	return removed
}

func (b *testBundle) find(t *testing.T, id string) jobs.Job {
	t.Helper()
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	job, err := b.Find(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// A cancelled run ends soon, with its ranges. It is listed as failed with that reason, and leaves no key.
func TestCancelActive(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"in one piece": 100, "shared": 2000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			handler, store := syncOf(n, wait(50*time.Millisecond))
			for range 2 {
				b.start(t, worker.Options{}, handler)
			}
			id := b.trigger(t, "user-sync", tasks.SyncFull)
			testbed.Eventually(t, "the run to be in its middle", func() bool {
				if name == "shared" && b.find(t, id).Ranges < n/100 { // it is being split
					return false
				}
				store.mu.Lock()
				defer store.mu.Unlock()
				return len(store.stamped) > 30
			})
			if job := b.find(t, id); job.State != jobs.StateActive || job.Attempt != 1 || job.Attempts != 3 || job.Started.IsZero() ||
				string(job.Data) != `{"syncType":"full"}` || name == "shared" && (job.Ranges != 20 || job.RangesEnded > 19) {
				t.Errorf("while it is active: %+v", job)
			}
			if b.cancel(t, id) {
				t.Error("an active run was removed")
			}
			asked := time.Now()
			info := b.await(t, id, asynq.TaskStateArchived)
			if took := time.Since(asked); info.LastErr != "cancelled" || took > 5*time.Second {
				t.Errorf("ended with %q after %s", info.LastErr, took)
			}
			if job := b.find(t, id); job.State != jobs.StateCancelled || job.Error != "cancelled" || job.Ended.IsZero() {
				t.Errorf("afterwards: %+v", job)
			}
			b.wantNothingLeft(t)
			store.mu.Lock()
			stamped := len(store.stamped)
			store.mu.Unlock()
			if stamped >= n {
				t.Error("the run went on to its end")
			}
			// The next one is not concerned.
			next := b.trigger(t, "user-sync", tasks.SyncFull)
			b.cancel(t, next)
		})
	}
}

// A cancelled run that waits for a retry is removed, with its state.
func TestCancelDelayed(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) { return nil, errors.New("told to") })
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	b.await(t, id, asynq.TaskStateRetry)
	if job := b.find(t, id); job.State != jobs.StateDelayed || job.Attempt != 1 || job.Error != "told to" || job.NextAttempt.Before(time.Now()) {
		t.Errorf("%+v", job)
	}
	if !b.cancel(t, id) {
		t.Error("it was not removed")
	}
	b.wantNothingLeft(t)
}

// A failed run that is retried by hand has all attempts again. A run that has not failed cannot be retried.
func TestRetryByHand(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var attempts atomic.Int32
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		n := int(attempts.Add(1)) - 1
		if number, retries := n%3+1, n/3; run.Number != number || run.Retries != retries {
			t.Errorf("attempt %d says that it is number %d of retry %d, want %d of %d", n, run.Number, run.Retries, number, retries)
		}
		if n < 8 {
			return nil, errors.New("told to")
		}
		return "done", nil
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.await(t, id, asynq.TaskStateArchived)
		if err := b.Retry(t.Context(), run, ""); err != nil {
			t.Fatal(err)
		}
	}
	info := b.await(t, id, asynq.TaskStateCompleted)
	if n := attempts.Load(); n != 9 || string(info.Result) != `"done"` {
		t.Errorf("%d attempts, result %s", n, info.Result)
	}
	if err := b.Retry(t.Context(), run, ""); !errors.Is(err, jobs.ErrNotFailed) {
		t.Errorf("retrying a completed run: %v", err)
	}
	if _, err := b.Cancel(t.Context(), run, jobs.Trigger{}); !errors.Is(err, jobs.ErrEnded) {
		t.Errorf("cancelling a completed run: %v", err)
	}
	b.wantNothingLeft(t)
	// The start after a retry by hand is no first start, and counts as no delay.
	b.wantCounted(t, counts{
		`runs_total{outcome="failed"}`: 2, `runs_total{outcome="completed"}`: 1, `retries_total{unit="run"}`: 6,
		"run_duration_seconds_count": 3, "run_start_delay_seconds_count": 1,
	})
}

// A run that was cancelled between two attempts does not begin another.
func TestCancelledBeforeItsWorkerCameBack(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	if err := b.rdb.HSet(t.Context(), "codex-jobs:{user-sync}:run:"+id, "cancelled", 1).Err(); err != nil {
		t.Fatal(err)
	}
	handler, store := syncOf(100, syncrun.Stamping{})
	b.start(t, worker.Options{}, handler)
	if info := b.await(t, id, asynq.TaskStateArchived); info.LastErr != "cancelled" || len(store.stamped) > 0 {
		t.Errorf("%+v, %d stamped", info, len(store.stamped))
	}
	b.wantNothingLeft(t)
	b.wantCounted(t, counts{`runs_total{outcome="cancelled"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1})
}

// A cancel of asynq's, such as another deployment's of a run with the same ID, ends nothing: neither a run nor its ranges. Only
// Cancel does.
func TestForeignCancel(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"in one piece": 100, "shared": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			handler, store := syncOf(n, wait(30*time.Millisecond))
			var handlers, most atomic.Int32
			b.start(t, worker.Options{}, func(ctx context.Context, a *jobtype.Attempt) (any, error) {
				if a.Range == nil {
					most.Store(max(most.Load(), handlers.Add(1)))
					defer handlers.Add(-1)
				}
				return handler(ctx, a)
			})
			id := b.trigger(t, "user-sync", tasks.SyncFull)
			for cancelled := 0; cancelled < 5; {
				testbed.Eventually(t, "a batch", func() bool {
					store.mu.Lock()
					defer store.mu.Unlock()
					return len(store.stamped) >= (cancelled+1)*n/10
				})
				for _, task := range []string{id, id + "/0", id + "/1", id + "/2"} {
					if err := b.inspector.CancelProcessing(task); err != nil {
						t.Fatal(err)
					}
				}
				cancelled++
			}
			info := b.await(t, id, asynq.TaskStateCompleted)
			if info.Retried != 0 || info.LastErr != "" || most.Load() != 1 {
				t.Errorf("%+v, with %d handlers at once", info, most.Load())
			}
			for i := 1; i <= n; i++ {
				if store.stamped[i] != 1 {
					t.Errorf("%d was stamped %d times", i, store.stamped[i])
				}
			}
			b.wantNothingLeft(t)
		})
	}
}

// The record of a run has all its attempts, those before a retry by hand included, and times in milliseconds.
func TestRecordOfARun(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var attempts atomic.Int32
	b.start(t, worker.Options{}, func(_ context.Context, run *jobtype.Attempt) (any, error) {
		n := attempts.Add(1)
		run.Count(int64(n), int64(n)-1, 1)
		if n <= 4 {
			return nil, fmt.Errorf("reason %d", n)
		}
		return "done", nil
	})
	def, _ := b.Registry().Lookup("user-sync")
	accepted, err := b.TriggerBy(t.Context(), def, &tasks.SyncPayload{SyncType: tasks.SyncFull}, jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "deploy"})
	if err != nil {
		t.Fatal(err)
	}
	id := accepted.ID.String()
	check := func(job jobs.Job, outcomes ...jobs.Outcome) {
		t.Helper()
		if len(job.EndedAttempts) != len(outcomes) {
			t.Fatalf("%d attempts are recorded, want %d: %+v", len(job.EndedAttempts), len(outcomes), job.EndedAttempts)
		}
		before := job.Created
		for i, a := range job.EndedAttempts {
			reason := fmt.Sprintf("reason %d", i+1)
			if a.Outcome == jobs.OutcomeCompleted {
				reason = ""
			}
			if a.Number != i%3+1 || a.Outcome != outcomes[i] || a.Error != reason || a.Worker == "" || a.Started.Before(before) || a.Ended.Before(a.Started) {
				t.Errorf("attempt %d: %+v", i, a)
			}
			before = a.Ended
		}
		if job.Started.Before(job.Created) || job.Ended.Before(job.Started) || !job.Ended.Equal(job.EndedAttempts[len(outcomes)-1].Ended) {
			t.Errorf("created %s, started %s, ended %s", job.Created, job.Started, job.Ended)
		}
		if n := int64(len(outcomes)); job.Counts == nil || *job.Counts != (jobs.RecordCounts{Processed: n, Updated: n - 1, Failed: 1}) {
			t.Errorf("counts: %+v", job.Counts)
		}
	}
	const failed = jobs.OutcomeFailed
	b.await(t, id, asynq.TaskStateArchived)
	job := b.find(t, id)
	check(job, failed, failed, failed)
	if job.TriggeredBy != (jobs.Trigger{Kind: "key", Key: "deploy"}) {
		t.Errorf("triggered by %+v", job.TriggeredBy)
	}
	if err := b.Retry(t.Context(), accepted.ID, "admin"); err != nil {
		t.Fatal(err)
	}
	b.await(t, id, asynq.TaskStateCompleted)
	job = b.find(t, id)
	check(job, failed, failed, failed, failed, jobs.OutcomeCompleted)
	if by := job.TriggeredBy; by.Kind != "retry" || by.Key != "admin" || time.Since(time.UnixMilli(by.At)).Abs() > time.Minute {
		t.Errorf("after the retry: triggered by %+v", job.TriggeredBy)
	}
	// What the previous release has ended has no record. asynq knows its end in whole seconds.
	task := "asynq:{user-sync}:t:" + id
	if err := b.rdb.HDel(t.Context(), task, "codex:started", "codex:ended", "codex:attempts", "codex:counts", "codex:retried").Err(); err != nil {
		t.Fatal(err)
	}
	if job := b.find(t, id); job.State != jobs.StateCompleted || job.Ended.Before(job.Created) || len(job.EndedAttempts) > 0 {
		t.Errorf("without a record: %+v", job)
	}
	// The record ends with the task.
	if err := b.inspector.DeleteTask("user-sync", id); err != nil {
		t.Fatal(err)
	}
	if n := b.rdb.Exists(t.Context(), task).Val(); n != 0 {
		t.Error("the record is left")
	}
}

// A run whose payload is not valid has a record, too.
func TestRecordOfARefusedRun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	id := tasks.TickID("user-sync", time.Now())
	task := asynq.NewTask("user-sync", []byte(`{"batchSize":0}`), b.user.TaskOptions(id.String())...)
	if _, err := asynq.NewClientFromRedisClient(b.rdb).EnqueueContext(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	b.start(t, worker.Options{}, func(context.Context, *jobtype.Attempt) (any, error) { return nil, nil })
	b.await(t, id.String(), asynq.TaskStateArchived)
	job := b.find(t, id.String())
	if len(job.EndedAttempts) != 1 || job.EndedAttempts[0].Error != job.Error || job.Started.IsZero() || job.Ended.Before(job.Started) ||
		job.TriggeredBy.Kind != jobs.TriggeredByTick {
		t.Errorf("%+v", job)
	}
}
