package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/notify"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// endAs ends a run with the outcome, as its worker does.
func (b *testBundle) endAs(ctx context.Context, t *testing.T, id tasks.RunID, outcome jobs.Outcome, counts *jobs.RecordCounts) {
	t.Helper()
	run, err := b.StartRun(ctx, id, "", jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	run.Attempt = &jobs.EndedAttempt{Number: 1, Started: time.Now(), Ended: time.Now(), Worker: "w", Outcome: outcome}
	run.Counts = counts
	if outcome == jobs.OutcomeCompleted {
		err = run.Complete(ctx, []byte("{}"))
	} else {
		run.Attempt.Error = strings.Repeat("told to ", 1000)
		err = run.Fail(ctx, errors.New("told to"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// notices returns the types of the notices that wait, and empties the list.
func (b *testBundle) notices(ctx context.Context, t *testing.T) (kinds []string) {
	t.Helper()
	const key = "codex-jobs:{user-sync}:notices"
	list, err := b.rdb.LRange(ctx, key, 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range list {
		var n struct{ ID, Type string }
		if err := json.Unmarshal([]byte(text), &n); err != nil || n.ID == "" || len(text) > 4<<10 {
			t.Errorf("the notice %s: %v", text, err)
		}
		kinds = append(kinds, n.Type)
	}
	b.rdb.Del(ctx, key)
	return kinds
}

// What each end of a run is told of, in turn.
func TestNoticesOfEnds(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	half := &jobs.RecordCounts{Processed: 10, Updated: 5, Failed: 5}
	for _, step := range []struct {
		name    string
		rate    float64 // -1 for nobody who notifies
		outcome jobs.Outcome
		counts  *jobs.RecordCounts
		want    []string
	}{
		{"nobody is notified", -1, jobs.OutcomeFailed, half, nil},
		{"a success, with nobody to recover", 0, jobs.OutcomeCompleted, half, nil},
		{"a failure", 0, jobs.OutcomeFailed, nil, []string{"run.failed"}},
		{"another", 0, jobs.OutcomeFailed, half, []string{"run.failed"}},
		{"a cancelled run", 0.1, jobs.OutcomeCancelled, half, nil},
		{"a success", 0.51, jobs.OutcomeCompleted, half, []string{"run.recovered"}},
		{"the next success", 0.51, jobs.OutcomeCompleted, half, nil},
		{"enough failed records", 0.5, jobs.OutcomeCompleted, half, []string{"records.failed"}},
		{"no records", 0.5, jobs.OutcomeCompleted, &jobs.RecordCounts{}, nil},
		{"failed records of a failed run", 0.5, jobs.OutcomeFailed, half, []string{"run.failed", "records.failed"}},
	} {
		if step.rate >= 0 {
			if err := b.Notify(ctx, step.rate); err != nil {
				t.Fatal(err)
			}
		}
		b.endAs(ctx, t, tasks.TriggerID("user-sync", time.Now()), step.outcome, step.counts)
		if got := b.notices(ctx, t); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

// A run that no attempt can be made at has failed for good, too, once for each retry by hand.
func TestNoticesOfRefusedRuns(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	if err := b.Notify(ctx, 0); err != nil {
		t.Fatal(err)
	}
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	refused := jobs.EndedAttempt{Number: 1, Started: time.Now(), Ended: time.Now(), Outcome: jobs.OutcomeFailed, Error: "invalid payload"}
	for _, want := range []int{1, 0} { // the worker died before asynq knew of the first
		if err := b.RecordRefused(ctx, id, jobs.Source{}, refused); err != nil {
			t.Fatal(err)
		}
		if got := b.notices(ctx, t); len(got) != want {
			t.Errorf("got %q, want %d", got, want)
		}
	}
	if err := b.inspector.ArchiveTask("user-sync", id.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.Retry(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.RecordRefused(ctx, id, jobs.Source{}, refused); err != nil {
		t.Fatal(err)
	}
	if got := b.notices(ctx, t); len(got) != 1 {
		t.Errorf("after a retry by hand: %q", got)
	}
}

// Several processes move the notices, and one of them dies after it has enqueued a notification. A run that a crash makes end twice is
// one event, and a retry by hand has another.
func TestMovingNotices(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	queue := notify.Queue(b.Jobs, slog.New(slog.DiscardHandler))
	if err := b.Notify(ctx, 0); err != nil {
		t.Fatal(err)
	}
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	b.endAs(ctx, t, id, jobs.OutcomeFailed, nil)
	b.endAs(ctx, t, id, jobs.OutcomeFailed, nil) // asynq did not know of the first end
	if err := b.inspector.ArchiveTask("user-sync", id.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.Retry(ctx, id, ""); err != nil {
		t.Fatal(err)
	}
	b.endAs(ctx, t, id, jobs.OutcomeFailed, nil)
	const key = "codex-jobs:{user-sync}:notices"
	again, err := b.rdb.LRange(ctx, key, 0, -1).Result()
	if err != nil || len(again) != 3 {
		t.Fatalf("%q, %v", again, err)
	}
	b.rdb.RPush(ctx, key, "damaged", `{"id": "1:user-sync:x", "type": "run.failed"}`)
	move := func() {
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := b.MoveNotices(ctx, queue); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	move()
	for _, text := range again {
		b.rdb.RPush(ctx, key, text)
	}
	move()
	waiting, err := b.inspector.ListPendingTasks(jobs.NotifyJob)
	if err != nil || len(waiting) != 2 {
		t.Errorf("%d notifications wait, want 2: %v", len(waiting), err)
	}
	if left := b.rdb.LLen(ctx, key).Val(); left != 0 {
		t.Errorf("%d notices are left", left)
	}
}

// One event for each outage, however many processes notice it. A pause and a schedule that is switched off are none.
func TestMissedTicks(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	looks := new(pipelines)
	b.rdb.AddHook(looks)
	every := b.def
	every.Schedule = tasks.Schedule{Every: time.Minute}
	watch := func() {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { b.WatchTicks(ctx, time.Minute, 20*time.Millisecond) })
		}
		asked := looks.Load()
		testbed.Eventually(t, "some looks of each", func() bool { return looks.Load() > asked+30 })
		cancel()
		all.Wait()
	}
	tick := func(ago time.Duration) {
		t.Helper()
		if err := b.rdb.Set(ctx, "codex-jobs:{user-sync}:tick", time.Now().Add(-ago).UnixMilli(), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	record := func(def tasks.Definition) {
		t.Helper()
		if err := b.RecordSchedule(ctx, def); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, n int) {
		t.Helper()
		watch()
		if got := b.notices(ctx, t); len(got) != n {
			t.Errorf("%s: %q, want %d", what, got, n)
		}
	}
	record(every)
	if n := b.rdb.Exists(ctx, "codex-jobs:{user-sync}:schedule").Val(); n != 0 {
		t.Error("the schedule is written down, and nobody notifies")
	}
	if err := b.Notify(ctx, 0); err != nil {
		t.Fatal(err)
	}
	record(every)
	tick(time.Hour)
	want("a schedule that has just begun", 0)
	b.rdb.HSet(ctx, "codex-jobs:{user-sync}:schedule", "since", time.Now().Add(-24*time.Hour).UnixMilli())
	record(every) // which is the same
	if err := b.Pause(ctx, b.def, jobs.Trigger{Kind: jobs.TriggeredByAPI}); err != nil {
		t.Fatal(err)
	}
	want("a pause", 0)
	if err := b.Resume(ctx, b.def, jobs.Trigger{Kind: jobs.TriggeredByAPI}); err != nil {
		t.Fatal(err)
	}
	want("an outage", 1)
	want("the same outage", 0)
	tick(45 * time.Second)
	want("within the grace", 0)
	tick(5 * time.Minute)
	want("the next outage", 1)
	tick(10 * time.Minute)
	off := b.def
	off.Schedule = tasks.Schedule{}
	record(off)
	want("no schedule", 0)
}

// A node of a cluster that fails in the middle of a look says nothing of its job types, and harms nothing.
func TestMissedTicksWhileANodeFails(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	looks := new(pipelines)
	b.rdb.AddHook(looks)
	b.rdb.AddHook(failingNode{})
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { b.WatchTicks(ctx, time.Minute, 20*time.Millisecond) })
	testbed.Eventually(t, "some looks", func() bool { return looks.Load() > 2 })
	cancel()
	watching.Wait()
}

// failingNode is a hook that answers as a cluster does of which a node has failed: the pipeline's error is that of its first command
// with one, which only says that a tick is not there.
type failingNode struct{}

func (failingNode) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (failingNode) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (failingNode) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		for _, c := range commands {
			if schedule, ok := c.(*redis.SliceCmd); ok {
				schedule.SetErr(errors.New("CLUSTERDOWN The cluster is down"))
				schedule.SetVal(nil)
				err = redis.Nil
			}
		}
		return err
	}
}

// pipelines is a hook that counts the pipelines.
type pipelines struct{ atomic.Int64 }

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		defer p.Add(1)
		return next(ctx, commands)
	}
}
