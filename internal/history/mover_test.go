package history_test

import (
	"slices"
	"testing"

	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestMoverMovesAll(t *testing.T) {
	t.Parallel()
	b, q := setup(t), setupQueues(t)
	var want []string
	var entries []jobs.Entry
	for i := range 350 {
		e := run("user-sync", i)
		entries = append(entries, e)
		want = append(want, e.ID)
	}
	other := run("issue-sync", 400)
	slices.Reverse(entries)
	q.add(t, append(entries, other)...)
	if err := q.rdb.LPush(t.Context(), listKey("user-sync"), "nonsense").Err(); err != nil {
		t.Fatal(err)
	}
	move(t, q, b.store)
	move(t, q, b.store) // another one at the same time
	testbed.Eventually(t, "the lists to be empty", func() bool { return q.empty(t, "user-sync") && q.empty(t, "issue-sync") })
	if got := b.list(t, history.Filter{Limit: 1000}); !slices.Equal(got, append(want, other.ID)) {
		t.Errorf("there are %d entries, want %d", len(got), len(want)+1)
	}

	// Signals: a run that has ended is there long before the next look.
	one := run("user-sync", -1)
	q.add(t, one)
	_, ended, _ := move(t, q, b.store)
	ended <- struct{}{}
	testbed.Eventually(t, "the entry", func() bool { _, err := b.store.Get(t.Context(), one.ID); return err == nil })
}

func TestMoverWaitsForMongoDB(t *testing.T) {
	t.Parallel()
	b, q := setup(t), setupQueues(t)
	b.proxy.Refuse()
	e := run("user-sync", 0)
	q.add(t, e)
	log, ended, stop := move(t, q, b.store)
	testbed.Await(t, log, 1, procs.Match{Msg: "Could not store entries of the history, trying again; they wait in Redis"})
	ended <- struct{}{}
	if q.empty(t, "user-sync") {
		t.Error("the entry is gone")
	}
	stop() // in time, although MongoDB is away
	log, _, _ = move(t, q, b.store)
	testbed.Await(t, log, 1, procs.Match{Msg: "Could not store entries of the history, trying again; they wait in Redis"})
	if err := b.proxy.Heal(); err != nil {
		t.Fatal(err)
	}
	testbed.Await(t, log, 1, procs.Match{Msg: "The history gets its entries again"})
	if got := b.list(t, history.Filter{}); !slices.Equal(got, []string{e.ID}) || !q.empty(t, "user-sync") {
		t.Errorf("then there are %q", got)
	}
}

// A user who may not make the collection: that is said once for each right, and the entries wait.
func TestMoverWithoutRights(t *testing.T) {
	t.Parallel()
	b, q := setup(t), setupQueues(t)
	for _, command := range []string{"createIndexes", "insert"} {
		b.proxy.Inject(faultproxy.Fault{Command: command, Code: 13, Message: "not authorized on test to execute command { insert }", Times: faultproxy.Always})
	}
	q.add(t, run("user-sync", 0), run("issue-sync", 0))
	log, _, _ := move(t, q, b.store)
	const said = "The user of MongoDB lacks a right for the history"
	for _, right := range []string{"createIndex", "insert"} {
		found := testbed.Await(t, log, 1, procs.Match{Msg: said, Attrs: map[string]any{"right": right}})
		if found[0].Attrs["collection"] != b.store.Name() || found[0].Attrs["level"] != "WARN" {
			t.Errorf("logged %v", found[0])
		}
	}
	move(t, q, b.store) // which ends only when it has tried
	testbed.Eventually(t, "more tries", func() bool { return b.proxy.Count("insert") >= 3 })
	if n := len(log.Find(procs.Match{Msg: said})); n != 2 || q.empty(t, "user-sync") || q.empty(t, "issue-sync") {
		t.Errorf("said %d times, want once for each of two rights", n)
	}
}
