package worker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func of(database string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return database, nil }
}

// A worker with another database takes nothing, says so once, and takes part when the others have left. Meanwhile it lives.
func TestWorkerOnAnotherDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	began := make(chan string, 100)
	on := func(database string) jobtype.Handler {
		return func(context.Context, *jobtype.Attempt) (any, error) {
			began <- database
			return nil, nil
		}
	}
	says := procs.Match{Msg: "Takes no runs: the other workers of this namespace use another database", Attrs: procs.Attrs{"level": "WARN", "theirs": "A"}}
	again := procs.Match{Msg: "Takes runs again: no other worker uses another database, or has other endpoints"}
	var old []func()
	for range 2 {
		old = append(old, b.start(t, worker.Options{Database: of("A")}, on("A")))
	}
	testbed.Eventually(t, "the first one to take part", func() bool { return b.rdb.Exists(t.Context(), "codex-jobs:{database}:identity").Val() == 1 })
	b.start(t, worker.Options{Database: of("B")}, on("B"))
	testbed.Await(t, b.log, 1, says)
	for range 10 {
		id := b.trigger(t, "user-sync", tasks.SyncFull)
		if database := testbed.Receive(t, "a run", began); database != "A" {
			t.Errorf("it ran on %s", database)
		}
		b.await(t, id, asynq.TaskStateCompleted)
	}
	if n, err := b.Live(t.Context(), jobs.RoleWorker); err != nil || n != 3 {
		t.Errorf("%d live, %v", n, err)
	}
	old[0]()
	b.trigger(t, "user-sync", tasks.SyncFull)
	if database := testbed.Receive(t, "a run", began); database != "A" {
		t.Errorf("it ran on %s, while a worker on A lives", database)
	}
	old[1]()
	left := time.Now()
	b.trigger(t, "user-sync", tasks.SyncIncremental)
	if database := testbed.Receive(t, "a run", began); database != "B" {
		t.Errorf("it ran on %s", database)
	}
	t.Logf("taken %s after the last one had left", time.Since(left))
	if n, m := len(b.log.Find(says)), len(b.log.Find(again)); n != 1 || m != 1 {
		t.Errorf("it said %d times that it takes nothing, and %d times that it does again", n, m)
	}
}

// Of workers that start at the same time with different databases only those with one of them take runs.
func TestDatabasesAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	var mu sync.Mutex
	ran := make(map[string]int)
	for _, database := range []string{"A", "B", "A", "B", "C"} {
		b.start(t, worker.Options{Database: of(database)}, func(context.Context, *jobtype.Attempt) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			ran[database]++
			return nil, nil
		})
	}
	for range 20 {
		b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	}
	if len(ran) != 1 {
		t.Errorf("runs on several databases: %v", ran)
	}
}

// An active run goes on on another database when its worker stops. It starts over there, at no cost.
func TestRunMovesToAnotherDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	entered := make(chan *jobtype.Attempt, 10)
	handler := func(_ context.Context, a *jobtype.Attempt) (any, error) {
		entered <- a
		if err := a.Save(t.Context(), []byte("here"), 10); err != nil {
			return nil, err
		}
		<-a.Stop
		return nil, context.Canceled
	}
	stop := b.start(t, worker.Options{Database: of("A")}, handler)
	b.trigger(t, "user-sync", tasks.SyncFull)
	testbed.Receive(t, "the first attempt", entered)
	b.start(t, worker.Options{Database: of("B")}, handler)
	testbed.Await(t, b.log, 1, procs.Match{Msg: "Takes no runs: the other workers of this namespace use another database"})
	stop()
	if a := testbed.Receive(t, "the second attempt", entered); a.Number != 1 || a.Checkpoint != nil {
		t.Errorf("it goes on from %q, as attempt %d", a.Checkpoint, a.Number)
	}
	if n := len(b.log.Find(procs.Match{Msg: "The run starts over: it was begun on another database"})); n != 1 {
		t.Errorf("said %d times", n)
	}
}
