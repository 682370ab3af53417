package history_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func TestEntryComesBackWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := run("user-sync", 0)
	want.State, want.Error = jobs.StateFailed, "no\x00 way"
	want.Result = json.RawMessage(`{"n":12345678901234567890,"html":"<b>"}`)
	want.FailedRecords = []jobs.FailedRecord{{ID: "64", Name: "Дмитро", Reason: "bad"}}
	want.Ranges = []jobs.EndedRange{{Index: 0, Worker: "w", Started: want.Started, Ended: want.At, Outcome: jobs.OutcomeFailed, Error: "no"}}
	want.RangesTotal, want.TraceID = 7, "0af7651916cd43dd8448eb211c80319c"
	b.put(t, want)
	got, err := b.store.Get(t.Context(), want.ID)
	if err != nil || !reflect.DeepEqual(json.RawMessage(must(t, got)), json.RawMessage(must(t, want))) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := b.store.Get(t.Context(), "1:user-sync"); !errors.Is(err, history.ErrNoEntry) {
		t.Errorf("an entry that is not there: %v", err)
	}
	listed, _, err := b.store.List(t.Context(), history.Filter{Limit: 10})
	want.Data, want.Result, want.EndedAttempts, want.FailedRecords, want.Ranges = nil, nil, nil, nil, nil
	if err != nil || len(listed) != 1 || string(must(t, listed[0])) != string(must(t, want)) {
		t.Errorf("listed is %+v, %v, want %+v", listed, err, want)
	}
}

func must(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A run that was retried by hand ends again. Whatever is put in which order, the latest end stays.
func TestLatestEndStays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	failed := run("user-sync", 5)
	failed.State, failed.Error = jobs.StateFailed, "first"
	completed := failed
	completed.At, completed.State, completed.Error = reference, jobs.StateCompleted, ""
	other := run("user-sync", 1)
	for i, entries := range [][]jobs.Entry{{failed}, {failed}, {other, failed, completed}, {failed, other}, {completed, failed}} {
		b.put(t, entries...)
		e, err := b.store.Get(t.Context(), failed.ID)
		if want := i >= 2; err != nil || (e.State == jobs.StateCompleted) != want {
			t.Errorf("after step %d it is %s, %v", i, e.State, err)
		}
	}
	if ids := b.list(t, history.Filter{}); !slices.Equal(ids, []string{failed.ID, other.ID}) {
		t.Errorf("listed are %q", ids)
	}
}

func TestListByFilters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pause := jobs.Entry{ID: "4075978800000:user-sync:pause:abcdefgh", Kind: jobs.EntryPause, Job: "user-sync", At: reference, By: jobs.Trigger{Kind: "key", Key: "ops"}}
	cancel := jobs.Entry{
		ID: "4075978800001:issue-sync:cancel:abcdefgh", Kind: jobs.EntryCancel, Job: "issue-sync", At: reference.Add(-time.Minute), Target: "123:issue-sync:zzz",
	}
	user, project, failed := run("user-sync", 2), run("project-sync", 3), run("user-sync", 4)
	failed.State, failed.Error = jobs.StateFailed, "Upstream said: 100% (of $x) [a.b] ÄÖ"
	failed.FailedRecords = []jobs.FailedRecord{{ID: "65A1", Name: "d'arc-17", Reason: "unsearched"}}
	removed := run("user-sync", 5)
	removed.State = jobs.StateRemoved
	all := []jobs.Entry{pause, cancel, user, project, failed, removed}
	shuffled := slices.Clone(all)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	b.put(t, shuffled...)
	for name, test := range map[string]struct {
		filter history.Filter
		want   []jobs.Entry
	}{
		"all":                 {history.Filter{}, all},
		"a job type":          {history.Filter{Job: "user-sync"}, []jobs.Entry{pause, user, failed, removed}},
		"a state":             {history.Filter{State: jobs.StateCompleted}, []jobs.Entry{user, project}},
		"both":                {history.Filter{Job: "user-sync", State: jobs.StateRemoved}, []jobs.Entry{removed}},
		"runs":                {history.Filter{Kind: jobs.EntryRun}, []jobs.Entry{user, project, failed, removed}},
		"runs in a state":     {history.Filter{Kind: jobs.EntryRun, State: jobs.StateFailed}, []jobs.Entry{failed}},
		"actions":             {history.Filter{Kind: jobs.EntryPause}, []jobs.Entry{pause}},
		"actions in a state":  {history.Filter{Kind: jobs.EntryPause, State: jobs.StateFailed}, nil},
		"from":                {history.Filter{From: project.At}, []jobs.Entry{pause, cancel, user, project}},
		"to":                  {history.Filter{To: project.At}, []jobs.Entry{failed, removed}},
		"from and to":         {history.Filter{From: project.At, To: cancel.At}, []jobs.Entry{user, project}},
		"an empty time":       {history.Filter{From: project.At, To: project.At}, nil},
		"text of an ID":       {history.Filter{Text: "PROJECT"}, []jobs.Entry{project}},
		"text of an error":    {history.Filter{Text: "100% (OF $X) [a.b] äö"}, []jobs.Entry{failed}},
		"a record's ID":       {history.Filter{Text: "65a1"}, []jobs.Entry{failed}},
		"a record's name":     {history.Filter{Text: "D'arc"}, []jobs.Entry{failed}},
		"a cancelled run":     {history.Filter{Text: "123:issue-sync:zzz"}, []jobs.Entry{cancel}},
		"a part of a name":    {history.Filter{Text: "arc"}, []jobs.Entry{failed}},
		"between words":       {history.Filter{Text: "'arc"}, []jobs.Entry{failed}},
		"within a word":       {history.Filter{Text: "rc-17"}, nil},
		"no word":             {history.Filter{Text: "%"}, []jobs.Entry{failed}},
		"no pattern":          {history.Filter{Text: "a.c"}, nil},
		"no other pattern":    {history.Filter{Text: ".*"}, nil},
		"not the reason":      {history.Filter{Text: "unsearched"}, nil},
		"text and job type":   {history.Filter{Text: "sync", Job: "project-sync"}, []jobs.Entry{project}},
		"an unknown job type": {history.Filter{Job: "nobody"}, nil},
	} {
		var want []string
		for _, e := range test.want {
			want = append(want, e.ID)
		}
		if ids := b.list(t, test.filter); !slices.Equal(ids, want) {
			t.Errorf("%s: got %q, want %q", name, ids, want)
		}
	}
}

// Entries of the same time have an order, too. What is added meanwhile changes no page to come.
func TestPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var entries []jobs.Entry
	var want []string
	for i := range 25 {
		e := run("user-sync", i/4)
		e.ID = fmt.Sprintf("%03d:user-sync", 100-i)
		entries = append(entries, e)
		want = append(want, e.ID)
	}
	b.put(t, entries...)
	var got []string
	filter := history.Filter{Job: "user-sync", Limit: 7, To: reference.Add(time.Second)}
	for page := 0; ; page++ {
		found, next, err := b.store.List(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found {
			got = append(got, e.ID)
		}
		if next.String() == "" {
			break
		}
		if filter.After, err = history.ParseCursor(next.String()); err != nil {
			t.Fatal(err)
		}
		newer := run("user-sync", -1-page)
		b.put(t, newer)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range []string{"x", "!", "MTIz", "MTIzIA", "eCB5"} {
		if c, err := history.ParseCursor(text); err == nil {
			t.Errorf("%q is the cursor %v", text, c)
		}
	}
}

// A server that refuses all writes says so of each document. That is no reason to drop one.
func TestServerThatRefusesWrites(t *testing.T) {
	t.Parallel()
	for code, message := range map[int]string{
		371: "User writes blocked", 8000: "you are over your space quota, using 513 MB of 512 MB", 14031: "Available disk space of 1 bytes",
	} {
		b := setup(t)
		e := run("user-sync", 1)
		b.put(t, e)
		e.At = reference
		if err := b.proxy.FailUpdates(code, message, e.ID); err != nil {
			t.Fatal(err)
		}
		if lost, err := b.store.Put(t.Context(), []jobs.Entry{e}); err == nil || len(lost) > 0 {
			t.Errorf("code %d: lost %v, %v", code, lost, err)
		}
		if err := b.proxy.Heal(); err != nil {
			t.Fatal(err)
		}
		b.put(t, e)
	}
}

// An index on the same field that expires nothing is not taken for one that does: then nobody would delete anything.
func TestIndexThatExpiresNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	index := mongo.IndexModel{Keys: bson.D{{Key: "expiresAt", Value: 1}}}
	if _, err := b.collection.Indexes().CreateOne(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	if err := b.store.EnsureExpiry(t.Context()); err == nil {
		t.Error("the server is said to delete what has expired")
	}
}

// What MongoDB does not take whole is stored without its details.
func TestUnusualEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	large, broken, fine := run("user-sync", 0), run("user-sync", 1), run("user-sync", 2)
	large.Result = json.RawMessage(`"` + strings.Repeat("x", 13<<20) + `"`)
	broken.Result, broken.Error = json.RawMessage("\"\xff\""), "\xff"
	b.put(t, large, broken, fine)
	if e, err := b.store.Get(t.Context(), large.ID); err != nil || e.Result != nil || e.State != jobs.StateCompleted || e.Counts == nil {
		t.Errorf("the large one is %+v, %v", e, err)
	}
	if e, err := b.store.Get(t.Context(), broken.ID); err != nil || string(e.Result) != "\"\ufffd\"" || e.Error != "\ufffd" {
		t.Errorf("the one that is not UTF-8 is %+v, %v", e, err)
	}
	newer := fine
	newer.At = reference.Add(time.Minute)
	if err := b.proxy.FailUpdates(121, "Document failed validation", fine.ID); err != nil {
		t.Fatal(err)
	}
	other := run("user-sync", 3)
	lost, err := b.store.Put(t.Context(), []jobs.Entry{newer, other, {ID: "9:user-sync", Data: json.RawMessage("{")}})
	if err != nil || len(lost) != 2 || lost[0].ID != "9:user-sync" || lost[1].ID != fine.ID || lost[1].Err == nil {
		t.Errorf("lost are %v, %v", lost, err)
	}
	if _, err := b.store.Get(t.Context(), other.ID); err != nil {
		t.Errorf("the one beside it: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.store.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.store.EnsureIndexes(t.Context()); err != nil {
		t.Errorf("once more: %v", err)
	}
	old, older, oldest := run("user-sync", 1), run("user-sync", 2*24*60), run("user-sync", 100*24*60)
	b.put(t, old, older, oldest)
	if n, err := b.store.Expire(t.Context(), reference); n != 1 || err != nil {
		t.Errorf("%d expired, %v, want one", n, err)
	}
	shorter := b.keeping(24 * time.Hour)
	for _, want := range []int{2, 0} {
		if n, err := shorter.Rekeep(t.Context()); n != want || err != nil {
			t.Errorf("%d have another time, %v, want %d", n, err, want)
		}
	}
	if n, err := shorter.Expire(t.Context(), reference); n != 1 || err != nil {
		t.Errorf("%d expired, %v, want one", n, err)
	}
	if ids := b.list(t, history.Filter{}); !slices.Equal(ids, []string{old.ID}) {
		t.Errorf("left are %q", ids)
	}
	var doc struct{ ExpiresAt time.Time }
	if err := b.collection.FindOne(t.Context(), bson.D{}).Decode(&doc); err != nil || !doc.ExpiresAt.Equal(old.At.Add(24*time.Hour)) {
		t.Errorf("it expires at %s, %v", doc.ExpiresAt, err)
	}
}

func TestExpiryByTheServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 2 {
		err := b.store.EnsureExpiry(t.Context())
		if os.Getenv("DEVSTACK_MONGODB") == "ferretdb" { // which has no such indexes
			if err == nil || errors.Is(err, syncrun.ErrUnavailable) {
				t.Errorf("the embedded server said %v", err)
			}
		} else if err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsOfStore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := run("user-sync", 0)
	for command, do := range map[string]func() error{
		"insert":        func() error { _, err := b.store.Put(t.Context(), []jobs.Entry{e}); return err },
		"find":          func() error { b.list(t, history.Filter{}); _, err := b.store.Get(t.Context(), e.ID); return err },
		"createIndexes": func() error { return b.store.EnsureIndexes(t.Context()) },
		"delete":        func() error { _, err := b.store.Expire(t.Context(), reference); return err },
	} {
		fault := faultproxy.Fault{Command: command, Code: 13, Message: "not authorized on test to execute command"}
		if command == "find" {
			fault.Skip = 1
		}
		b.proxy.Inject(fault)
		var right *history.RightError
		action := map[string]string{"createIndexes": "createIndex", "delete": "remove"}[command]
		if action == "" {
			action = command
		}
		if err := do(); !errors.As(err, &right) || right.Action != action {
			t.Errorf("%s without the right: %v", command, err)
		}
		if err := do(); err != nil && !errors.Is(err, history.ErrNoEntry) {
			t.Errorf("%s with the right: %v", command, err)
		}
		if command == "createIndexes" {
			command = "listIndexes" // as there are none to make any more
		}
		b.proxy.Inject(faultproxy.Fault{Command: command, Kind: faultproxy.CutBefore, Skip: fault.Skip})
		if err := do(); !errors.Is(err, syncrun.ErrUnavailable) {
			t.Errorf("%s on a broken connection: %v", command, err)
		}
	}
}
