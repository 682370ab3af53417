package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// setupReleases returns two releases on one Redis. The second has payloads of version 2.
func setupReleases(t *testing.T) (previous, next *testBundle) {
	t.Helper()
	next = setup(t, func(d *tasks.Definition) { d.PayloadVersion = 2 })
	old := *next
	old.Jobs = jobs.New(next.rdb, codex.Registry(), next.logger)
	old.log, old.logger = testbed.NewLog(t)
	return &old, next
}

// This release understands a run that the previous one enqueued.
func TestPayloadOfThePreviousRelease(t *testing.T) {
	t.Parallel()
	_, next := setupReleases(t)
	for id, payload := range map[string]string{"1000:user-sync": `{"syncType":"full"}`, "1001:user-sync": `{"version":1,"syncType":"full"}`} {
		task := asynq.NewTask("user-sync", []byte(payload), next.user.TaskOptions(id)...)
		if _, err := asynq.NewClientFromRedisClient(next.rdb).EnqueueContext(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	handler, _ := syncOf(300, syncrun.Stamping{})
	next.start(t, worker.Options{}, handler)
	for _, id := range []string{"1000:user-sync", "1001:user-sync"} {
		if r := syncResult(t, next.await(t, id, asynq.TaskStateCompleted)); r.UsersUpdated != 300 {
			t.Errorf("%s: %+v", id, r)
		}
	}
}

// A run that the next release enqueued waits for a worker of that release, at no cost, and so do its ranges.
func TestPayloadOfTheNextRelease(t *testing.T) {
	t.Parallel()
	previous, next := setupReleases(t)
	handler, store := syncOf(1000, wait(5*time.Millisecond))
	previous.start(t, worker.Options{}, handler)
	id := next.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Await(t, previous.log, 1, procs.Match{Msg: "Run put back for workers of a newer release"})
	if info := next.await(t, id, asynq.TaskStateRetry); info.Retried != 0 {
		t.Errorf("%+v; want it put back at no cost", info)
	}
	next.start(t, worker.Options{}, handler)
	info := next.await(t, id, asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersUpdated != 1000 || info.Retried != 0 {
		t.Errorf("%+v, retried %d times", r, info.Retried)
	}
	if len(previous.log.Find(procs.Match{Text: "Leaving ranges to workers of a newer release"})) == 0 {
		t.Error("the previous release's worker never saw a range")
	}
	store.wantEachOnce(t)
	next.wantNothingLeft(t)
}

// A run that no worker understands for an hour fails.
func TestPayloadThatNoWorkerUnderstands(t *testing.T) {
	t.Parallel()
	previous, next := setupReleases(t)
	id := next.trigger(t, "user-sync", tasks.SyncFull)
	if err := next.rdb.HSet(t.Context(), "codex-jobs:{user-sync}:run:"+id, "postponed", time.Now().Add(-61*time.Minute).UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	handler, _ := syncOf(300, syncrun.Stamping{})
	previous.start(t, worker.Options{}, handler)
	info := next.await(t, id, asynq.TaskStateArchived)
	if !strings.Contains(info.LastErr, "no worker understood it for 1h0m0s: the payload is of version 2; this release understands up to version 1") {
		t.Errorf("reason %q", info.LastErr)
	}
	if keys, err := next.rdb.Keys(t.Context(), "codex-jobs:*:run:*").Result(); err != nil || len(keys) > 0 {
		t.Errorf("left of the run: %v, %v", keys, err)
	}
}

// The hour begins anew after a worker has understood the run.
func TestPayloadThatWasUnderstood(t *testing.T) {
	t.Parallel()
	previous, next := setupReleases(t)
	id := next.trigger(t, "user-sync", tasks.SyncFull)
	key := "codex-jobs:{user-sync}:run:" + id
	if err := next.rdb.HSet(t.Context(), key, "postponed", time.Now().Add(-61*time.Minute).UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
	started := make(chan *jobtype.Attempt, 1)
	stop := next.start(t, worker.Options{}, stoppable(started))
	testbed.Receive(t, "the run", started)
	stop()
	handler, _ := syncOf(100, syncrun.Stamping{})
	previous.start(t, worker.Options{}, handler)
	testbed.Await(t, previous.log, 1, procs.Match{Msg: "Run put back for workers of a newer release"})
	if info := next.await(t, id, asynq.TaskStateRetry); info.Retried != 0 {
		t.Errorf("%+v", info)
	}
}
