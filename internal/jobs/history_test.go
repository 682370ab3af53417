package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// setupHistory is setup with a history.
func setupHistory(t *testing.T) (*testBundle, context.Context) {
	t.Helper()
	b, ctx := setup(t)
	b.KeepHistory()
	return b, ctx
}

// entries returns the entries in the list of the job type, oldest first.
func (b *testBundle) entries(ctx context.Context, t *testing.T) []jobs.Entry {
	t.Helper()
	list, err := b.Entries(ctx, b.def, jobs.MaxEntries)
	if err != nil {
		t.Fatal(err)
	}
	var entries []jobs.Entry
	for _, e := range list {
		if e.Err != nil {
			t.Fatal(e.Err)
		}
		entries = append(entries, e.Entry)
	}
	return entries
}

var ops = jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "ops"}

// ended is how an attempt ended, a given time after the run's first one began.
func ended(number int, at time.Time, outcome jobs.Outcome, reason string) *jobs.EndedAttempt {
	return &jobs.EndedAttempt{
		Number: number, Started: at.Add(-time.Second).Truncate(time.Millisecond), Ended: at.Truncate(time.Millisecond), Worker: "w1", Outcome: outcome, Error: reason,
	}
}

// retryLater makes an active run one that waits for a retry, as asynq does after an attempt that has failed.
func (b *testBundle) retryLater(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	_, err := b.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.LRem(ctx, key("pending"), 0, id)
		p.ZAdd(ctx, key("retry"), redis.Z{Score: float64(time.Now().Add(time.Hour).Unix()), Member: id})
		p.HSet(ctx, key("t:")+id, "state", "retry")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Each way to end a run adds one entry of it, with what is known of it.
func TestEachEndHasAnEntry(t *testing.T) {
	t.Parallel()
	const trace = "0af7651916cd43dd8448eb211c80319c"
	source := jobs.Source{
		Payload: []byte(`{"version":1,"syncType":"full"}`), TraceID: trace,
		Headers: map[string]string{"codex-triggered-by": `{"kind":"key","key":"nightly"}`},
	}
	// open begins the run as a worker does, at a time that a test can compare.
	open := func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) *jobs.RunState {
		t.Helper()
		run, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		run.Source = source
		return run
	}
	for name, c := range map[string]struct {
		end       func(context.Context, *testing.T, *testBundle, tasks.RunID) error
		want      jobs.Entry
		cancelled bool // with an entry of the action
	}{
		"completed": {
			func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) error {
				run := open(ctx, t, b, id)
				run.Attempt, run.Counts = ended(1, time.Now(), jobs.OutcomeCompleted, ""), &jobs.RecordCounts{Processed: 3, Updated: 2, Failed: 1}
				run.FailedRecords = []jobs.FailedRecord{{ID: "7", Name: "ada", Reason: "bad"}}
				err := run.Complete(ctx, []byte(`{"n":12345678901234567890}`))
				return errors.Join(err, run.Complete(ctx, []byte(`{}`))) // asked again, because the answer was lost
			},
			jobs.Entry{
				State: jobs.StateCompleted, Attempt: 1, Counts: &jobs.RecordCounts{Processed: 3, Updated: 2, Failed: 1},
				Result: json.RawMessage(`{"n":12345678901234567890}`), FailedRecords: []jobs.FailedRecord{{ID: "7", Name: "ada", Reason: "bad"}},
				EndedAttempts: []jobs.EndedAttempt{*ended(1, time.Time{}, jobs.OutcomeCompleted, "")}, TraceID: trace,
			},
			false,
		},
		"failed at the second attempt": {
			func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) error {
				run := open(ctx, t, b, id)
				run.Attempt = ended(1, time.Now(), jobs.OutcomeFailed, "no")
				if err := run.FailAttempt(ctx); err != nil {
					return err
				}
				run = open(ctx, t, b, id)
				run.Attempt = ended(2, time.Now(), jobs.OutcomeFailed, "no again")
				return run.Fail(ctx, errors.New("no again"))
			},
			jobs.Entry{
				State: jobs.StateFailed, Attempt: 2, Error: "no again", TraceID: trace, EndedAttempts: []jobs.EndedAttempt{
					*ended(1, time.Time{}, jobs.OutcomeFailed, "no"), *ended(2, time.Time{}, jobs.OutcomeFailed, "no again"),
				},
			},
			false,
		},
		"cancelled while active": {
			func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) error {
				run := open(ctx, t, b, id)
				b.take(ctx, t)
				for range 2 {
					if removed, err := b.Cancel(ctx, id, ops); err != nil || removed {
						t.Errorf("cancelling: %v, %v", removed, err)
					}
				}
				run.Attempt = ended(1, time.Now(), jobs.OutcomeCancelled, "cancelled")
				return run.Fail(ctx, errors.New("cancelled"))
			},
			jobs.Entry{
				State: jobs.StateCancelled, Attempt: 1, Error: "cancelled", TraceID: trace,
				EndedAttempts: []jobs.EndedAttempt{*ended(1, time.Time{}, jobs.OutcomeCancelled, "cancelled")},
			},
			true,
		},
		"refused": {
			func(ctx context.Context, _ *testing.T, b *testBundle, id tasks.RunID) error {
				refused := *ended(1, time.Now(), jobs.OutcomeFailed, "invalid")
				return errors.Join(b.RecordRefused(ctx, id, source, refused), b.RecordRefused(ctx, id, source, refused))
			},
			jobs.Entry{
				State: jobs.StateFailed, Attempt: 1, Error: "invalid", TraceID: trace,
				EndedAttempts: []jobs.EndedAttempt{*ended(1, time.Time{}, jobs.OutcomeFailed, "invalid")},
			},
			false,
		},
		"removed before it began": {
			func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) error {
				if removed, err := b.Cancel(ctx, id, ops); err != nil || !removed {
					t.Errorf("cancelling: %v, %v", removed, err)
				}
				if _, err := b.Cancel(ctx, id, ops); !errors.Is(err, jobs.ErrNoJob) {
					t.Errorf("cancelling again: %v", err)
				}
				return nil
			},
			jobs.Entry{State: jobs.StateRemoved},
			true,
		},
		"removed before its second attempt": {
			func(ctx context.Context, t *testing.T, b *testBundle, id tasks.RunID) error {
				run := open(ctx, t, b, id)
				run.Attempt = ended(1, time.Now(), jobs.OutcomeFailed, "no")
				if err := run.FailAttempt(ctx); err != nil {
					return err
				}
				b.retryLater(ctx, t, id.String())
				if removed, err := b.Cancel(ctx, id, ops); err != nil || !removed {
					t.Errorf("cancelling: %v, %v", removed, err)
				}
				return nil
			},
			jobs.Entry{
				State: jobs.StateRemoved, Attempt: 1, EndedAttempts: []jobs.EndedAttempt{*ended(1, time.Time{}, jobs.OutcomeFailed, "no")},
			},
			true,
		},
		"archived on the dashboard": {
			func(ctx context.Context, _ *testing.T, b *testBundle, id tasks.RunID) error {
				queue, _ := b.OurQueue(b.def.Queue())
				return b.ArchiveTask(ctx, queue, id.String(), ops)
			},
			jobs.Entry{State: jobs.StateFailed, Error: "archived by hand while it waited"},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := setupHistory(t)
			before := time.Now().Truncate(time.Millisecond)
			accepted, err := b.TriggerBy(ctx, b.def, payload(tasks.SyncFull), jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "nightly"})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.end(ctx, t, b, accepted.ID); err != nil {
				t.Fatal(err)
			}
			var runs, actions []jobs.Entry
			for _, e := range b.entries(ctx, t) {
				if e.Kind == jobs.EntryRun {
					runs = append(runs, e)
				} else {
					actions = append(actions, e)
				}
			}
			if len(runs) != 1 {
				t.Fatalf("the run has %d entries: %+v", len(runs), runs)
			}
			got := runs[0]
			if got.At.Before(before) || got.At.After(time.Now()) || got.Started.IsZero() != (c.want.Attempt == 0) || got.Started.After(got.At) {
				t.Errorf("it began at %s, and ended at %s", got.Started, got.At)
			}
			for i, a := range got.EndedAttempts {
				if a.Ended.Before(before) || a.Started.IsZero() {
					t.Errorf("the attempt %+v has wrong times", a)
				}
				got.EndedAttempts[i].Started, got.EndedAttempts[i].Ended = time.Time{}, time.Time{}
			}
			for i := range c.want.EndedAttempts {
				c.want.EndedAttempts[i].Started, c.want.EndedAttempts[i].Ended = time.Time{}, time.Time{}
			}
			got.At, got.Started = time.Time{}, time.Time{}
			want := c.want
			want.ID, want.Kind, want.Job, want.Attempts = accepted.ID.String(), jobs.EntryRun, b.def.Name, b.def.Attempts
			want.Data, want.By = json.RawMessage(`{"syncType":"full"}`), jobs.Trigger{Kind: jobs.TriggeredByKey, Key: "nightly"}
			if fmt.Sprintf("%+v", plain(t, got)) != fmt.Sprintf("%+v", plain(t, want)) {
				t.Errorf("the entry is\n%s, want\n%s", plain(t, got), plain(t, want))
			}

			if !c.cancelled {
				if len(actions) > 0 {
					t.Errorf("there are actions: %+v", actions)
				}
				return
			}
			if len(actions) != 1 || actions[0].Kind != jobs.EntryCancel || actions[0].By != ops || actions[0].Target != accepted.ID.String() ||
				actions[0].Job != b.def.Name || actions[0].At.Before(before) {
				t.Errorf("the actions are %+v, want one cancel by ops", actions)
			}
		})
	}
}

// plain returns the JSON of an entry.
func plain(t *testing.T, e jobs.Entry) string {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A retry by hand gives the run another entry, which is newer than the first, whatever the clocks say, and has all attempts.
func TestEntryOfARetry(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	end := func(at time.Time, outcome jobs.Outcome, end func(*jobs.RunState) error) {
		t.Helper()
		run, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		run.Attempt = ended(1, at, outcome, "")
		if err := end(run); err != nil {
			t.Fatal(err)
		}
	}
	first := time.Now().Truncate(time.Millisecond)
	fail := func(run *jobs.RunState) error {
		return errors.Join(run.Fail(ctx, errors.New("told to")), b.inspector.ArchiveTask(b.def.Name, id.String()))
	}
	end(first, jobs.OutcomeFailed, fail)
	for _, key := range []string{"ops", "admin"} {
		if err := b.Retry(ctx, id, key); err != nil {
			t.Fatal(err)
		}
		// The clock of this worker is a minute behind.
		end(first.Add(-time.Minute), jobs.OutcomeFailed, fail)
	}
	if err := b.Retry(ctx, id, "late"); err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Cancel(ctx, id, ops); err != nil || !removed {
		t.Fatalf("cancelling the last retry: %v, %v", removed, err)
	}

	var keys, states []string
	last := first.Add(-time.Millisecond)
	runs := slices.DeleteFunc(b.entries(ctx, t), func(e jobs.Entry) bool { return e.Kind != jobs.EntryRun })
	for i, e := range runs {
		keys, states = append(keys, e.By.Key), append(states, string(e.State))
		if !e.At.After(last) || e.ID != id.String() {
			t.Errorf("entry %d of %s is at %s, after one at %s", i, e.ID, e.At, last)
		}
		last = e.At
		if n := min(i+1, 3); len(e.EndedAttempts) != n {
			t.Errorf("entry %d has the attempts %+v, want %d", i, e.EndedAttempts, n)
		}
	}
	if !slices.Equal(keys, []string{"", "ops", "admin", "late"}) || !slices.Equal(states, []string{"failed", "failed", "failed", "removed"}) {
		t.Errorf("the entries are by %q, and %q", keys, states)
	}
	if e := runs[len(runs)-1]; e.Attempt != 0 || !e.Started.IsZero() {
		t.Errorf("the run that was removed before its retry began has attempt %d, and began at %s", e.Attempt, e.Started)
	}
}

// A worker dies after it has ended the run, and before asynq knows. The run is rescued, and ends once more: with the same ID, later, and
// with both attempts, so that the newer entry takes the place of the older one.
func TestEntryOfARunThatEndsTwice(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	for range 2 {
		run, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(b.entries(ctx, t)); run.Rescued || n > 1 {
			t.Errorf("rescued: %v, with %d entries", run.Rescued, n)
		}
		run.Attempt = ended(1, time.Now(), jobs.OutcomeCompleted, "")
		if err := run.Complete(ctx, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	list := b.entries(ctx, t)
	if len(list) != 2 || list[0].ID != list[1].ID || !list[1].At.After(list[0].At) || len(list[1].EndedAttempts) != 2 {
		t.Errorf("the entries are %+v", list)
	}
}

// An attempt that does not own the run adds no entry: one of a worker that was frozen, or of one that is about to end it.
func TestFencedAttemptHasNoEntry(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	frozen, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	if err := frozen.Complete(ctx, []byte("{}")); !errors.Is(err, jobs.ErrFenced) {
		t.Errorf("completing: %v", err)
	}
	if err := frozen.Fail(ctx, errors.New("late")); !errors.Is(err, jobs.ErrFenced) {
		t.Errorf("failing: %v", err)
	}
	if list := b.entries(ctx, t); len(list) > 0 {
		t.Errorf("the entries are %+v", list)
	}
}

// The entry of a split run has its ranges, with what each worker has done, and the first records that failed in them, in the order of the
// ranges. They do not end in that order. The run was cancelled, and so could not add up itself.
func TestEntryHasRanges(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	run, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
	if err != nil {
		t.Fatal(err)
	}
	const ranges = 14
	for i := range ranges {
		if err := run.AddRange(ctx, i, []byte("{}"), i == ranges-1); err != nil {
			t.Fatal(err)
		}
	}
	before := time.Now().Truncate(time.Millisecond)
	for i := ranges - 2; i >= 0; i-- { // the last one has not begun
		part, err := b.OpenRange(ctx, tasks.RangeID{Run: id, Index: i}, jobs.NewOwner("host:1:abc"))
		if err != nil {
			t.Fatal(err)
		}
		part.Attempt = ended(1, time.Now(), jobs.OutcomeCompleted, "")
		part.Attempt.Worker = fmt.Sprint("w", i%2)
		part.Counts = &jobs.RecordCounts{Processed: 100, Updated: 10, Failed: 90}
		for n := range 90 {
			part.FailedRecords = append(part.FailedRecords, jobs.FailedRecord{ID: fmt.Sprintf("%d-%d", i, n), Reason: "no"})
		}
		if i == 1 {
			err = part.Fail(ctx, errors.New("told to"))
		} else {
			err = part.Complete(ctx, []byte("{}"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// What Redis keeps of them is bounded.
	if fields, err := b.rdb.HKeys(ctx, "codex-jobs:{user-sync}:ranges:"+id.String()).Result(); err != nil {
		t.Fatal(err)
	} else if lists := len(slices.DeleteFunc(fields, func(f string) bool { return !strings.HasSuffix(f, ":failed") })); lists != 12 {
		t.Errorf("%d ranges list failed records, want 12 with 1080", lists)
	}
	run.Attempt = ended(1, time.Now(), jobs.OutcomeCancelled, "cancelled")
	if err := run.Fail(ctx, errors.New("cancelled")); err != nil {
		t.Fatal(err)
	}
	list := b.entries(ctx, t)
	if len(list) != 1 {
		t.Fatalf("the entries are %+v", list)
	}
	e := list[0]
	if e.RangesTotal != ranges || len(e.Ranges) != ranges-1 || *e.Counts != (jobs.RecordCounts{Processed: 1300, Updated: 130, Failed: 1170}) {
		t.Errorf("it has %d ranges of %d, and did %+v", len(e.Ranges), e.RangesTotal, e.Counts)
	}
	for i, r := range e.Ranges {
		outcome, reason := jobs.OutcomeCompleted, ""
		if i == 1 {
			outcome, reason = jobs.OutcomeFailed, "told to"
		}
		if r.Index != i || r.Worker != fmt.Sprint("w", i%2) || r.Outcome != outcome || r.Error != reason || r.Counts == nil || r.Counts.Failed != 90 ||
			r.Started.Before(before) || r.Ended.Before(r.Started) {
			t.Errorf("range %d is %+v", i, r)
		}
	}
	// Two ranges ended after the thousand was full.
	if n := len(e.FailedRecords); n != jobs.MaxFailedRecords || e.FailedRecords[0].ID != "1-0" || e.FailedRecords[90].ID != "2-0" {
		t.Errorf("%d records failed: %+v", n, e.FailedRecords)
	}
}

// Each action has an entry with who did it. One that changes nothing has none.
func TestEntriesOfActions(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	admin := jobs.Trigger{Kind: jobs.TriggeredByAPI}
	before := time.Now().Truncate(time.Millisecond)
	must(b.Resume(ctx, b.def, admin))
	must(b.Pause(ctx, b.def, ops))
	must(b.Pause(ctx, b.def, admin))
	must(b.Resume(ctx, b.def, admin))
	must(b.Resume(ctx, b.def, ops))
	if _, err := b.Cleanup(ctx, b.def, time.Now().Add(time.Hour), ops); err != nil {
		t.Fatal(err)
	}
	b.end(ctx, t, 3)
	if _, err := b.Cleanup(ctx, b.def, time.Now().Add(time.Hour), ops); err != nil {
		t.Fatal(err)
	}
	list := b.entries(ctx, t)
	want := []jobs.Entry{
		{Kind: jobs.EntryPause, By: ops}, {Kind: jobs.EntryResume, By: admin}, {Kind: jobs.EntryCleanup, By: ops, Removed: &jobs.Removed{Failed: 3}},
	}
	if len(list) != len(want) {
		t.Fatalf("the entries are %+v", list)
	}
	for i, e := range list {
		prefix := fmt.Sprintf("%d:user-sync:%s:", e.At.UnixMilli(), want[i].Kind)
		if !strings.HasPrefix(e.ID, prefix) || len(e.ID) != len(prefix)+8 || e.At.Before(before) || e.At.After(time.Now()) {
			t.Errorf("entry %d is %q at %s", i, e.ID, e.At)
		}
		want[i].ID, want[i].At, want[i].Job = e.ID, e.At, "user-sync"
		if plain(t, e) != plain(t, want[i]) {
			t.Errorf("entry %d is %s, want %s", i, plain(t, e), plain(t, want[i]))
		}
	}
}

// A full list drops its oldest entries, and counts them. The log says so once.
func TestFullListDropsTheOldest(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	log, logger := testbed.NewLog(t)
	b.Jobs = jobs.New(b.rdb, b.Registry(), logger)
	b.KeepHistory()
	texts := make([]any, jobs.MaxEntries)
	for i := range texts {
		texts[i] = fmt.Sprintf(`{"entry":{"id":"%d"}}`, i)
	}
	if err := b.rdb.RPush(ctx, historyKey, texts[1:]...).Err(); err != nil {
		t.Fatal(err)
	}
	dropped := procs.Match{Text: "The history loses entries"}
	if err := b.Pause(ctx, b.def, ops); err != nil { // the last one that fits in
		t.Fatal(err)
	}
	if n, err := b.DroppedEntries(ctx, b.def); n != 0 || err != nil || len(log.Find(dropped)) > 0 {
		t.Errorf("%d were dropped from a list with a place left, %v, says the log: %v", n, err, log.Find(dropped))
	}
	if err := b.Resume(ctx, b.def, ops); err != nil {
		t.Fatal(err)
	}
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	if _, err := b.Cancel(ctx, id, ops); err != nil { // two entries
		t.Fatal(err)
	}
	list := b.entries(ctx, t)
	if len(list) != jobs.MaxEntries || list[0].ID != "4" || list[len(list)-1].Kind != jobs.EntryCancel {
		t.Errorf("left are %d from %q to %q", len(list), list[0].ID, list[len(list)-1].ID)
	}
	if n, err := b.DroppedEntries(ctx, b.def); n != 3 || err != nil {
		t.Errorf("%d were dropped, %v; want 3", n, err)
	}
	metrics := collect(t, b.Jobs)
	if waiting, dropped := metrics[`history_waiting{job_type="user-sync"}`], metrics[`history_dropped_total{job_type="user-sync"}`]; waiting != jobs.MaxEntries ||
		dropped != 3 {
		t.Errorf("the metrics say that %v wait, and %v were dropped", waiting, dropped)
	}
	if lines := log.Find(dropped); len(lines) != 1 {
		t.Errorf("the log says it %d times", len(lines))
	}
}

// Without a history there is no list.
func TestNoHistory(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	b.run(ctx, t, id, func(s *jobs.RunState) error { return s.Complete(ctx, []byte("{}")) })
	delayed := b.delay(ctx, t, tasks.SyncFull, time.Hour)
	if _, err := b.Cancel(ctx, delayed.ID, ops); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Pause(ctx, b.def, ops), b.Resume(ctx, b.def, ops)); err != nil {
		t.Fatal(err)
	}
	b.end(ctx, t, 1)
	if _, err := b.Cleanup(ctx, b.def, time.Now().Add(time.Hour), ops); err != nil {
		t.Fatal(err)
	}
	if n, err := b.rdb.Exists(ctx, historyKey).Result(); n != 0 || err != nil {
		t.Errorf("there is a list: %d, %v", n, err)
	}
}

// slots collects the hash tags of the keys of scripts.
type slots struct {
	mu   sync.Mutex
	tags map[string][]string // by script
}

func (*slots) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (*slots) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *slots) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); cmd.Name() == "evalsha" {
			s.mu.Lock()
			n, _ := args[2].(int)
			for _, key := range args[3 : 3+n] {
				_, rest, _ := strings.Cut(key.(string), "{")
				tag, _, _ := strings.Cut(rest, "}")
				script := fmt.Sprint(args[1])
				s.tags[script] = append(s.tags[script], tag)
			}
			s.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

// On a cluster, a script may only touch keys of one slot.
func TestScriptsOfTheHistoryTouchOneSlot(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	b.Jobs = jobs.New(b.rdb, b.Registry().In("shop"), slog.New(slog.DiscardHandler))
	b.def, _ = b.Registry().Lookup("user-sync")
	b.KeepHistory()
	seen := &slots{tags: make(map[string][]string)}
	b.rdb.AddHook(seen)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(nil, b.Pause(ctx, b.def, ops))
	must(nil, b.Resume(ctx, b.def, ops))
	must(b.Cancel(ctx, b.trigger(ctx, t, tasks.SyncFull).ID, ops))
	queue, _ := b.OurQueue(b.def.Queue())
	archived := b.trigger(ctx, t, tasks.SyncFull).ID
	must(nil, b.ArchiveTask(ctx, queue, archived.String(), ops))
	must(b.Cleanup(ctx, b.def, time.Now().Add(time.Hour), ops))
	run := b.trigger(ctx, t, tasks.SyncFull).ID
	state, err := b.StartRun(ctx, run, tasks.SyncFull, jobs.NewOwner("host:1:abc"))
	must(nil, err)
	must(nil, state.AddRange(ctx, 0, []byte("{}"), true))
	part, err := b.OpenRange(ctx, tasks.RangeID{Run: run}, jobs.NewOwner("host:1:abc"))
	must(nil, err)
	must(nil, part.Complete(ctx, []byte("{}")))
	must(nil, state.Complete(ctx, []byte("{}")))
	must(nil, b.RecordRefused(ctx, run, jobs.Source{}, jobs.EndedAttempt{}))
	if len(seen.tags) < 10 {
		t.Errorf("only %d scripts ran", len(seen.tags))
	}
	for script, tags := range seen.tags {
		for _, tag := range tags {
			if tag != "shop:user-sync" {
				t.Errorf("script %s has keys of %q", script, slices.Compact(tags))
				break
			}
		}
	}
	if list := b.entries(ctx, t); len(list) != 8 {
		t.Errorf("there are %d entries: %+v", len(list), list)
	}
}

// Scripts that end a run which waits take the place of asynq's. They must leave what asynq's would.
func TestArchivedRunIsAsynqs(t *testing.T) {
	t.Parallel()
	b, ctx := setupHistory(t)
	queue, _ := b.OurQueue(b.def.Queue())
	for _, list := range []string{"pending", "scheduled", "retry"} {
		id := b.trigger(ctx, t, tasks.SyncFull).ID
		switch list {
		case "scheduled":
			id = b.delay(ctx, t, tasks.SyncFull, soon).ID
			testbed.Eventually(t, "the run to be due", func() bool { return time.Now().After(id.Reference) })
		case "retry":
			b.retryLater(ctx, t, id.String())
		}
		before, err := b.inspector.GetQueueInfo(b.def.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.ArchiveTask(ctx, queue, id.String(), ops); err != nil {
			t.Fatal(list, err)
		}
		after, err := b.inspector.GetQueueInfo(b.def.Name)
		if err != nil || after.Archived != before.Archived+1 || after.Size != before.Size {
			t.Errorf("%s: %d are archived of %d, then %d of %d, %v", list, before.Archived, before.Size, after.Archived, after.Size, err)
		}
		b.wantState(t, id.String(), asynq.TaskStateArchived)
		if err := b.inspector.RunTask(b.def.Name, id.String()); err != nil {
			t.Error(list, err)
		}
		b.wantState(t, id.String(), asynq.TaskStatePending)
		if _, err := b.Cancel(ctx, id, ops); err != nil {
			t.Error(list, err)
		}
	}
}
