package worker_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncjob"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// numbers is a store of the records 1 to n.
type numbers struct {
	n int

	mu      sync.Mutex
	stamped map[int]int // how often
}

type number int

func (n number) String() string { return fmt.Sprint(int(n)) }

func keyOf(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// bounds returns the first and the last number of the range.
func (s *numbers) bounds(r syncrun.Range) (first, last int) {
	first, last = 1, s.n
	if r.After != nil {
		first = int(binary.BigEndian.Uint32(r.After)) + 1
	}
	if r.Upto != nil {
		last = int(binary.BigEndian.Uint32(r.Upto))
	}
	return first, last
}

func (s *numbers) EndOfRange(_ context.Context, after []byte, size int) ([]byte, error) {
	first, last := s.bounds(syncrun.Range{After: after})
	if first+size-1 >= last {
		return nil, nil
	}
	return keyOf(first + size - 1), nil
}

func (s *numbers) Count(_ context.Context, _ syncrun.Selection, r syncrun.Range) (int64, error) {
	first, last := s.bounds(r)
	return int64(last - first + 1), nil
}

func (s *numbers) Scan(_ context.Context, _ syncrun.Selection, r syncrun.Range) (syncrun.Cursor, error) {
	first, last := s.bounds(r)
	return &numbersCursor{first, last}, nil
}

func (s *numbers) Stamp(_ context.Context, updates []syncrun.Update, _ syncrun.Selection) (syncrun.Stamped, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range updates {
		s.stamped[int(u.Record.ID.(number))]++
	}
	return syncrun.Stamped{Matched: int64(len(updates))}, nil
}

// wantEachOnce checks that every record was stamped once.
func (s *numbers) wantEachOnce(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 1; i <= s.n; i++ {
		if s.stamped[i] != 1 {
			t.Fatalf("record %d was stamped %d times", i, s.stamped[i])
		}
	}
}

type numbersCursor struct{ next, last int }

func (c *numbersCursor) Read(_ context.Context, records []syncrun.Record) (n int, err error) {
	for ; n < len(records) && c.next <= c.last; n++ {
		records[n] = syncrun.Record{Key: keyOf(c.next), ID: number(c.next)}
		c.next++
	}
	return n, nil
}

func (c *numbersCursor) Close() {}

// workFunc is a syncrun.Work, without updates of its own.
type workFunc func(ctx context.Context, batch []syncrun.Record) error

func (f workFunc) Do(ctx context.Context, batch []syncrun.Record) ([]syncrun.Outcome, error) {
	return make([]syncrun.Outcome, len(batch)), f(ctx, batch)
}

// wait is work that takes that long.
// workOf returns what makes the work of each attempt.
func workOf(f workFunc) func(*jobtype.Attempt) syncrun.Work {
	return func(*jobtype.Attempt) syncrun.Work { return f }
}

func wait(d time.Duration) workFunc {
	return func(ctx context.Context, _ []syncrun.Record) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// syncOf returns the handler of a sync of n records, in ranges of 100 and batches of 10.
func syncOf(n int, work syncrun.Work) (jobtype.Handler, *numbers) {
	store := &numbers{n: n, stamped: make(map[int]int)}
	return syncjob.New(store, syncjob.Options{
		Noun: "number", BatchSize: 10, Work: func(*jobtype.Attempt) syncrun.Work { return work }, Writers: 1, RangeSize: 100, RetryBudget: time.Second,
	}), store
}

func syncResult(t *testing.T, info *asynq.TaskInfo) tasks.SyncResult {
	t.Helper()
	var r tasks.SyncResult
	if err := json.Unmarshal(info.Result, &r); err != nil {
		t.Fatalf("result %q: %v", info.Result, err)
	}
	return r
}

// wantNothingLeft checks that the only keys that runs leave are the tasks of the ended ones.
func (b *testBundle) wantNothingLeft(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"codex-jobs:*:run:*", "codex-jobs:*:ranges:*", "codex-jobs:*:waiting*", "asynq:{*:ranges}:t:*"} {
		testbed.Eventually(t, "nothing to be left of "+pattern, func() bool {
			keys, err := b.rdb.Keys(t.Context(), pattern).Result()
			return err == nil && len(keys) == 0
		})
	}
	queues, err := b.inspector.Queues()
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range queues {
		if info, err := b.inspector.GetQueueInfo(queue); err != nil || strings.HasSuffix(queue, ":ranges") && info.Size > 0 {
			t.Errorf("left in %s: %+v, %v", queue, info, err)
		}
	}
}

func TestLargeRunIsShared(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const n, workers = 2000, 3
	store := &numbers{n: n, stamped: make(map[int]int)}
	var took [workers]atomic.Int32
	for i := range workers {
		b.start(t, worker.Options{}, syncjob.New(store, syncjob.Options{
			Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 100, RetryBudget: time.Second,
			Work: workOf(func(ctx context.Context, batch []syncrun.Record) error {
				took[i].Add(1)
				return wait(5*time.Millisecond)(ctx, batch)
			}),
		}))
	}
	testbed.Eventually(t, "all workers to be live", func() bool {
		n, err := b.Live(t.Context(), jobs.RoleWorker)
		return err == nil && n == workers
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	progress := -1
	testbed.Eventually(t, "progress and the end", func() bool {
		status, err := b.Status(t.Context(), b.Registry().All()...)
		if err != nil {
			t.Fatal(err)
		}
		if c := status.Counts; c.Active+c.Completed > 1 || c.Waiting+c.Delayed+c.Failed > 1 {
			t.Fatalf("the ranges count as jobs: %+v", c)
		}
		for _, active := range status.Active {
			if active.ID != id || active.Progress < progress {
				t.Fatalf("%+v follows %d %%", active, progress)
			}
			progress = active.Progress
		}
		return status.Counts.Completed == 1
	})
	if progress < 20 {
		t.Errorf("the progress got to %d %%", progress)
	}
	info := b.await(t, id, asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersProcessed != n || r.UsersUpdated != n || r.Errors != 0 || info.Retried != 0 {
		t.Errorf("result %+v, retried %d times", r, info.Retried)
	}
	store.wantEachOnce(t)
	for i := range took {
		if batches := took[i].Load(); batches < 20 {
			t.Errorf("worker %d has worked on %d of 200 batches", i, batches)
		}
	}
	b.wantNothingLeft(t)
}

// A worker begins the next range while it finishes the last batch of one, and does no more at once than in one range. It takes no other
// range before: another worker could have it.
func TestNextRangeBeginsEarly(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	store := &numbers{n: 300, stamped: make(map[int]int)}
	var working, ranges, mostWorking, mostRanges atomic.Int32
	begun := make(map[int]chan struct{}) // by the first record of a batch
	for first := 1; first <= 300; first += 10 {
		begun[first] = make(chan struct{})
	}
	inner := syncjob.New(store, syncjob.Options{
		Noun: "number", BatchSize: 10, Writers: 2, RangeSize: 100, RetryBudget: time.Second,
		Work: workOf(func(ctx context.Context, batch []syncrun.Record) error {
			storeMax(&mostWorking, working.Add(1))
			defer working.Add(-1)
			first := int(batch[0].ID.(number))
			close(begun[first])
			if first != 91 && first != 191 {
				return nil
			}
			select {
			case <-begun[first+10]: // the next range's first one
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Minute):
				return errors.New("the next range has not begun")
			}
		}),
	})
	b.start(t, worker.Options{}, func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		if run.Range != nil {
			storeMax(&mostRanges, ranges.Add(1))
			defer ranges.Add(-1)
			exhausted := run.Exhausted
			run.Exhausted = func() {
				if n := ranges.Load(); n > 2 {
					t.Errorf("%d ranges are active", n)
				}
				exhausted()
			}
		}
		return inner(ctx, run)
	})
	info := b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersUpdated != 300 || r.Errors != 0 || info.Retried != 0 {
		t.Errorf("result %+v, retried %d times", r, info.Retried)
	}
	if mostRanges.Load() != 2 || mostWorking.Load() != 2 {
		t.Errorf("at most %d ranges and %d batches at once, want 2 and 2", mostRanges.Load(), mostWorking.Load())
	}
	store.wantEachOnce(t)
	b.wantNothingLeft(t)
}

// storeMax makes most at least n.
func storeMax(most *atomic.Int32, n int32) {
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
}

// While a range has more to read, its worker takes no other.
func TestOneRangeIsRead(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	handler, _ := syncOf(500, wait(time.Millisecond))
	var reading, read atomic.Int32
	b.start(t, worker.Options{}, func(ctx context.Context, run *jobtype.Attempt) (any, error) {
		if run.Range != nil {
			if n := reading.Add(1); n > 1 {
				t.Errorf("%d ranges are being read", n)
			}
			exhausted := run.Exhausted
			run.Exhausted = func() {
				reading.Add(-1)
				read.Add(1)
				exhausted()
			}
		}
		return handler(ctx, run)
	})
	b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	if n := read.Load(); n != 5 {
		t.Errorf("%d ranges were read to their end, want 5", n)
	}
}

// Runs of all job types wait for their ranges at the same time, in one worker with one place.
func TestRangesAreNotStarved(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	handler, _ := syncOf(500, wait(time.Millisecond))
	b.start(t, worker.Options{Concurrency: 1}, handler)
	var ids []string
	for _, job := range b.Registry().Names() {
		ids = append(ids, b.trigger(t, job, tasks.SyncFull), b.trigger(t, job, tasks.SyncIncremental))
	}
	for _, id := range ids {
		if r := syncResult(t, b.await(t, id, asynq.TaskStateCompleted)); r.UsersUpdated != 500 {
			t.Errorf("%s: %+v", id, r)
		}
	}
	b.wantNothingLeft(t)
}

// A failed range is retried from its checkpoint. The run does not notice.
func TestRangeIsRetried(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var failures atomic.Int32
	handler, store := syncOf(300, workFunc(func(_ context.Context, batch []syncrun.Record) error {
		if batch[0].ID.(number) == 151 && failures.Add(1) <= 2 {
			return errors.New("refused")
		}
		return nil
	}))
	b.start(t, worker.Options{}, handler)
	info := b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersUpdated != 300 || info.Retried != 0 {
		t.Errorf("result %+v, retried %d times", r, info.Retried)
	}
	if n := failures.Load(); n != 3 {
		t.Errorf("the range was tried %d times", n)
	}
	store.wantEachOnce(t)
	b.wantNothingLeft(t)
	// The batches that failed are not among them.
	b.wantCounted(t, counts{
		`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
		`ranges_total{outcome="completed"}`: 3, `retries_total{unit="range"}`: 2,
		"records_processed_total": 300, "records_updated_total": 300, "batch_duration_seconds_count": 30,
	})
}

// A range that has used up its attempts fails its run, with its reason. The other ranges finish.
func TestRangeFailsItsRun(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("told to") },
		"panic": func() error { panic("told to") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, quickRetries)
			var failures atomic.Int32
			store := &numbers{n: 300, stamped: make(map[int]int)}
			inner := syncjob.New(store, syncjob.Options{
				Noun: "number", BatchSize: 10, Writers: 1, RangeSize: 100, RetryBudget: time.Second,
			})
			b.start(t, worker.Options{}, func(ctx context.Context, run *jobtype.Attempt) (any, error) {
				if run.Range != nil && strings.Contains(string(run.Range), `"after":"AAAAZA=="`) { // behind 100
					failures.Add(1)
					return nil, fail()
				}
				return inner(ctx, run)
			})
			info := b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateArchived)
			if !strings.Contains(info.LastErr, "1 of 3") || !strings.Contains(info.LastErr, "range 1: after 3 attempts: ") ||
				!strings.Contains(info.LastErr, "told to") || info.Retried != 0 {
				t.Errorf("reason %q, retried %d times", info.LastErr, info.Retried)
			}
			if n := failures.Load(); n != 3 {
				t.Errorf("the range was tried %d times, want 3", n)
			}
			if n := len(store.stamped); n != 200 {
				t.Errorf("%d records of the other ranges were stamped, want 200", n)
			}
			b.wantNothingLeft(t)
			b.wantCounted(t, counts{
				`runs_total{outcome="failed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
				`ranges_total{outcome="completed"}`: 2, `ranges_total{outcome="failed"}`: 1, `retries_total{unit="range"}`: 2,
				"records_processed_total": 200, "records_updated_total": 200, "batch_duration_seconds_count": 20,
			})
		})
	}
}

// A panic in the work on a batch, which has a goroutine of its own, is a failed attempt, too.
func TestWorkPanics(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"in one piece": 50, "shared": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, quickRetries)
			handler, _ := syncOf(n, workFunc(func(context.Context, []syncrun.Record) error { panic("told to") }))
			b.start(t, worker.Options{}, handler)
			info := b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateArchived)
			if !strings.Contains(info.LastErr, "panic: told to") || len(b.log.Find(procs.Match{Text: "ranges_test.go"})) == 0 {
				t.Errorf("reason %q, or no stack in the log", info.LastErr)
			}
		})
	}
}

// When a split run is retried by hand, its ranges have all attempts again, too, and know of the retry.
func TestRetryOfASplitRun(t *testing.T) {
	t.Parallel()
	b := setup(t, quickRetries)
	var attempts atomic.Int32
	handler, store := syncOf(300, workFunc(func(_ context.Context, batch []syncrun.Record) error {
		if batch[0].ID.(number) == 101 && attempts.Add(1) <= 6 {
			return errors.New("told to")
		}
		return nil
	}))
	var retries atomic.Int32
	b.start(t, worker.Options{}, func(ctx context.Context, a *jobtype.Attempt) (any, error) {
		if want := int(retries.Load()); a.Retries != want {
			t.Errorf("an attempt at a run or range (%s) says that the run was retried %d times, want %d", a.Range, a.Retries, want)
		}
		return handler(ctx, a)
	})
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(2) {
		testbed.Eventually(t, "two more failed attempts at a range", func() bool { return attempts.Load() == 2*(i+1) })
		b.cancel(t, id)
		b.await(t, id, asynq.TaskStateArchived)
		retries.Add(1)
		if err := b.Retry(t.Context(), run, ""); err != nil {
			t.Fatal(err)
		}
	}
	info := b.await(t, id, asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersUpdated != 300 || attempts.Load() != 7 {
		t.Errorf("result %+v after %d attempts at the range", r, attempts.Load())
	}
	if n := len(store.stamped); n != 300 {
		t.Errorf("%d records were stamped", n)
	}
	b.wantNothingLeft(t)
}

// Workers are replaced over and over in the middle of a run. That costs no attempt, and no batch is done again.
func TestRollingRestartsOfASplitRun(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	const n = 3000
	handler, store := syncOf(n, wait(10*time.Millisecond))
	var stops []func()
	for range 2 {
		stops = append(stops, b.start(t, worker.Options{}, handler))
	}
	id := b.trigger(t, "user-sync", tasks.SyncFull)
	b.await(t, id, asynq.TaskStateActive)
	stampedAtLeast := func(want int) func() bool {
		return func() bool {
			store.mu.Lock()
			defer store.mu.Unlock()
			return len(store.stamped) >= want
		}
	}
	for round := range 4 {
		testbed.Eventually(t, "some more records to be stamped", stampedAtLeast((round+1)*300))
		stops = append(stops, b.start(t, worker.Options{}, handler))
		stops[0]()
		stops = stops[1:]
	}
	info := b.await(t, id, asynq.TaskStateCompleted)
	if r := syncResult(t, info); r.UsersProcessed != n || r.UsersUpdated != n || info.Retried != 0 {
		t.Errorf("result %+v, retried %d times", r, info.Retried)
	}
	store.wantEachOnce(t)
	if len(b.log.Find(procs.Match{Text: "Recovered"})) > 0 || len(b.log.Find(procs.Match{Text: "will be tried again"})) > 0 {
		t.Error("the log says that an attempt was lost")
	}
	b.wantNothingLeft(t)
}

// When a run has ended, its last ranges end by themselves.
func TestRangesOfARunThatIsTooLong(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *tasks.Definition) { d.MaxDuration = 500 * time.Millisecond })
	handler, _ := syncOf(1000, wait(50*time.Millisecond))
	b.start(t, worker.Options{}, handler)
	info := b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateArchived)
	if info.LastErr != "exceeded its maximum duration of 500ms" {
		t.Errorf("reason %q", info.LastErr)
	}
	b.wantNothingLeft(t)
}

// A range that kills its workers fails its run.
func TestRangeThatKillsWorkers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		crashes int
		state   asynq.TaskState
	}{{1, asynq.TaskStateCompleted}, {5, asynq.TaskStateCompleted}, {6, asynq.TaskStateArchived}} {
		t.Run(fmt.Sprint(test.crashes), func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			id := b.trigger(t, "user-sync", tasks.SyncFull)
			run, err := tasks.ParseRunID(id)
			if err != nil {
				t.Fatal(err)
			}
			// Workers that split the run and died in its first range leave this.
			state, err := b.OpenRun(t.Context(), run, jobs.NewOwner("host:1:abc"))
			if err != nil {
				t.Fatal(err)
			}
			first, err := json.Marshal(syncrun.Range{Upto: keyOf(100)})
			if err != nil {
				t.Fatal(err)
			}
			if err := state.AddRange(t.Context(), 0, first, false); err != nil {
				t.Fatal(err)
			}
			for range test.crashes {
				part, err := b.OpenRange(t.Context(), tasks.RangeID{Run: run}, jobs.NewOwner("host:1:abc"))
				if err != nil {
					t.Fatal(err)
				}
				checkpoint, err := json.Marshal(syncrun.Checkpoint{After: keyOf(50), Total: 100, Processed: 50, Updated: 50})
				if err != nil {
					t.Fatal(err)
				}
				if err := part.Save(t.Context(), checkpoint, jobs.Progress{Percent: 50}); err != nil {
					t.Fatal(err)
				}
			}
			handler, store := syncOf(300, syncrun.Stamping{})
			b.start(t, worker.Options{}, handler)
			info := b.await(t, id, test.state)
			if len(b.log.Find(procs.Match{Text: "Recovered range from a dead worker"})) == 0 {
				t.Error("the log does not say that the range was rescued")
			}
			if test.state == asynq.TaskStateArchived {
				if !strings.Contains(info.LastErr, "given up: 6 workers died") {
					t.Errorf("reason %q", info.LastErr)
				}
			} else if r := syncResult(t, info); r.UsersProcessed != 300 || r.UsersUpdated != 300 || len(store.stamped) != 250 {
				t.Errorf("result %+v, %d stamped; want the range to go on at its checkpoint", r, len(store.stamped))
			}
			b.wantNothingLeft(t)
			want := counts{
				`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1,
				`ranges_total{outcome="completed"}`: 3, `recoveries_total{unit="run"}`: 1, `recoveries_total{unit="range"}`: 1,
				"records_processed_total": 250, "records_updated_total": 250, "batch_duration_seconds_count": 25,
			}
			if test.state == asynq.TaskStateArchived { // its second half was not done either
				want = counts{
					`runs_total{outcome="failed"}`: 1, "run_duration_seconds_count": 1,
					`ranges_total{outcome="completed"}`: 2, `ranges_total{outcome="failed"}`: 1,
					`recoveries_total{unit="run"}`: 1, `recoveries_total{unit="range"}`: 1,
					"records_processed_total": 200, "records_updated_total": 200, "batch_duration_seconds_count": 20,
				}
			}
			b.wantCounted(t, want)
		})
	}
}

// A task that is no range fails, and does no harm to others.
func TestPoisonedRanges(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	client := asynq.NewClientFromRedisClient(b.rdb)
	for _, id := range []string{"garbage", "1000:issue-sync/0"} {
		task := asynq.NewTask(b.user.RangeType(), []byte("\x00"), asynq.Queue(b.user.RangeQueue()), asynq.TaskID(id))
		if _, err := client.EnqueueContext(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	// A range of a run that is not there.
	if err := b.EnqueueRange(t.Context(), b.user, tasks.RangeID{Run: tasks.TickID("user-sync", time.Now())}, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	handler, store := syncOf(300, syncrun.Stamping{})
	b.start(t, worker.Options{}, handler)
	b.await(t, b.trigger(t, "user-sync", tasks.SyncFull), asynq.TaskStateCompleted)
	store.wantEachOnce(t)
	testbed.Eventually(t, "only the tasks that are no range to be listed as failed", func() bool {
		info, err := b.inspector.GetQueueInfo(b.user.RangeQueue())
		return err == nil && info.Archived == 2 && info.Size == 2
	})
	// What has no run to be a range of ends as nothing.
	b.wantCounted(t, counts{
		`runs_total{outcome="completed"}`: 1, "run_duration_seconds_count": 1, "run_start_delay_seconds_count": 1,
		`ranges_total{outcome="completed"}`: 3, `ranges_total{outcome="failed"}`: 2,
		"records_processed_total": 300, "records_updated_total": 300, "batch_duration_seconds_count": 30,
	})
}

// While a run is active it shows what is done to its records, and how many there are once that is known. Its worker says that it works
// on the run, and on its ranges.
func TestActiveRunShowsItsRecords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, syncType string
		n              int
		done           int64 // before the work is held up
		total          int64
		ranges         []string
	}{
		{"in one piece", tasks.SyncFull, 80, 50, 80, nil},
		{"in one piece, incremental", tasks.SyncIncremental, 80, 50, 80, nil},
		{"shared", tasks.SyncFull, 300, 250, 300, []string{"/2"}},
		{"shared, incremental", tasks.SyncIncremental, 300, 250, 300, []string{"/2"}},
		{"shared, incremental, with a range that has not counted", tasks.SyncIncremental, 400, 250, 0, []string{"/2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, nil)
			goOn := make(chan struct{})
			handler, _ := syncOf(test.n, workFunc(func(_ context.Context, batch []syncrun.Record) error {
				if int64(batch[0].ID.(number)) > test.done {
					<-goOn
				}
				return nil
			}))
			b.start(t, worker.Options{Concurrency: 1}, handler)
			text := b.trigger(t, "user-sync", test.syncType)
			id, err := tasks.ParseRunID(text)
			if err != nil {
				t.Fatal(err)
			}
			var job jobs.Job
			testbed.Eventually(t, "the counts", func() bool {
				job, err = b.Find(t.Context(), id)
				return err == nil && job.State == jobs.StateActive && job.Counts != nil && job.Counts.Processed == test.done && job.Total == test.total
			})
			if want := (jobs.RecordCounts{Processed: test.done, Updated: test.done}); *job.Counts != want || job.RescueWithin != 0 {
				t.Errorf("%+v, rescued within %s; want %+v", job.Counts, job.RescueWithin, want)
			}
			want := []string{text}
			for _, index := range test.ranges {
				want = append(want, text+index)
			}
			testbed.Eventually(t, "the worker to say what it does", func() bool {
				live, err := b.Processes(t.Context())
				return err == nil && len(live) == 1 && slices.Equal(live[0].Doing, want) && live[0].Started > 0 && live[0].Version != ""
			})
			close(goOn)
			b.await(t, text, asynq.TaskStateCompleted)
			if job, err = b.Find(t.Context(), id); err != nil || job.Counts == nil || job.Counts.Processed != int64(test.n) || job.Total != 0 {
				t.Errorf("in the end: %+v, %v", job.Counts, err)
			}
			testbed.Eventually(t, "the worker to say that it does nothing", func() bool {
				live, err := b.Processes(t.Context())
				return err == nil && len(live) == 1 && len(live[0].Doing) == 0
			})
			b.wantNothingLeft(t)
		})
	}
}
