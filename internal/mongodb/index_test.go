package mongodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// makeIndex makes the index of the bundle's store.
func (b *testBundle) makeIndex(t *testing.T) {
	t.Helper()
	err := b.store.MakeIndex(t.Context())
	if os.Getenv("DEVSTACK_MONGODB") == "ferretdb" {
		if err == nil {
			t.Error("the embedded server has indexes of some records only: it needs no exception here any more")
		}
		b.store.indexed.Store(true) // it ignores hints, and answers the same without
	} else if err != nil {
		t.Fatal(err)
	}
}

// insertFresh inserts records that are not due, so that others are few.
func (b *testBundle) insertFresh(t *testing.T, n int) {
	t.Helper()
	docs := make([]bson.D, n)
	for i := range docs {
		name := fmt.Sprintf("fresh%04d", i)
		docs[i] = bson.D{{Key: "_id", Value: name}, {Key: "username", Value: name}, {Key: b.store.SyncedField, Value: at(-time.Minute)}, {Key: "tenant", Value: "a"}}
	}
	b.insert(t, docs...)
}

// few returns a bundle whose store has the few records of the selection only.
func (b *testBundle) few(t *testing.T, sel syncrun.Selection) *testBundle {
	t.Helper()
	few, found, err := b.store.Few(t.Context(), sel)
	if err != nil || !found {
		t.Fatalf("found few: %v, %v", found, err)
	}
	narrowed := *b
	narrowed.store = few.(*Store)
	return &narrowed
}

// TestFewIsWhatAScanFinds reads records with each kind of stamp and _id, by the index and without, from the beginning and behind each
// key.
func TestFewIsWhatAScanFinds(t *testing.T) {
	t.Parallel()
	everyType := allTypes(t)
	for name, cfg := range map[string]Config{
		"stamps":       {},
		"some fields":  {Fields: []string{"roles"}},
		"all fields":   {Fields: []string{AllFields}},
		"with a query": {Fields: []string{}, Filter: ofTenantA},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupAt(t, serverURI(t), cfg)
			users := stampedUsers(t)
			random := rand.New(rand.NewPCG(4, 4))
			for i, u := range users {
				doc := append(u.doc(), bson.E{Key: "tenant", Value: []string{"a", "b"}[i%2]})
				for taken := true; taken; {
					if i > 0 { // the first one has a string, as those that are fresh
						doc[0].Value = randomID(t, random, everyType)
					}
					_, err := b.users.InsertOne(t.Context(), doc)
					if taken = mongo.IsDuplicateKeyError(err); err != nil && !taken {
						t.Fatalf("%s: %v", u.name, err)
					}
				}
			}
			b.insertFresh(t, 600)
			b.makeIndex(t)
			whole := b.scan(t, incremental, nil)
			if len(whole) < len(users)/3 || len(whole) >= len(users) {
				t.Fatalf("%d records are due", len(whole))
			}
			few := b.few(t, incremental)
			check := func(within syncrun.Range, want []syncrun.Record) {
				t.Helper()
				got := few.scanRange(t, incremental, within)
				if !slices.Equal(keys(got), keys(want)) {
					t.Fatalf("behind %v:\n got %v\nwant %v", keyName(within.After), keys(got), keys(want))
				}
				for i := range got {
					got[i].ID, want[i].ID = nil, nil // which is a pointer
					if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
						t.Errorf("behind %v: read %+v, want %+v", keyName(within.After), got[i], want[i])
					}
				}
				if n, err := few.store.Count(t.Context(), incremental, within); err != nil || n != int64(len(want)) {
					t.Errorf("behind %v: counted %d, %v; want %d", keyName(within.After), n, err, len(want))
				}
			}
			check(syncrun.Range{}, slices.Clone(whole))
			for i, r := range whole {
				check(syncrun.Range{After: r.Key}, slices.Clone(whole[i+1:]))
			}

			// A record that became fresh meanwhile is visited no more, and it keeps its later stamp.
			later := bson.D{{Key: "$set", Value: stamp(at(time.Minute))}}
			first := key(whole[0].Key).value()
			if _, err := b.users.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$eq", Value: first}}}}, later); err != nil {
				t.Fatal(err)
			}
			if got := few.scan(t, incremental, nil); !slices.Equal(keys(got), keys(whole[1:])) {
				t.Errorf("with one fresh by now: read %v", keys(got))
			}
		})
	}
}

// TestManyAreNotFew checks when a run must not use the index.
func TestManyAreNotFew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertFresh(t, 200)
	for i := range 20 {
		b.insert(t, bson.D{{Key: "_id", Value: i}, {Key: lastSynced, Value: []any{nil, at(-time.Hour)}[i%2]}})
	}
	b.makeIndex(t)
	look := func(sel syncrun.Selection) bool {
		t.Helper()
		_, found, err := b.store.Few(t.Context(), sel)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if !look(incremental) {
		t.Error("20 of 220 are not few")
	}
	if look(everything) {
		t.Error("a full run used the index")
	}
	for i := range 3 {
		b.insert(t, bson.D{{Key: "_id", Value: fmt.Sprint("due", i)}})
	}
	if look(incremental) {
		t.Error("23 of 223 are few")
	}
	if _, err := b.users.DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	if look(incremental) {
		t.Error("there is something in an empty collection")
	}
}

func TestLooksLikeOperator(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		id   any
		want bool
	}{
		{"$ref", false},
		{bson.D{}, false},
		{bson.D{{Key: "a", Value: bson.D{{Key: "$ref", Value: "users"}}}}, false},
		{bson.D{{Key: "$ref", Value: "users"}, {Key: "$id", Value: 1}}, true},
	} {
		if got := looksLikeOperator(rawValue(t, test.id)); got != test.want {
			t.Errorf("%v: %v", test.id, got)
		}
	}
}

// TestCommandsOfFew checks that the index is asked for by its name, that what is found is read in the order of _id, and that without
// the index nothing is sent.
func TestCommandsOfFew(t *testing.T) {
	t.Parallel()
	var sent commands
	b := setupAt(t, serverURI(t), Config{SyncedField: "syncedAt"}, sent.monitor)
	b.insertFresh(t, 30)
	b.insert(t, bson.D{{Key: "_id", Value: 1}})
	if _, found, err := b.store.Few(t.Context(), incremental); found || err != nil {
		t.Errorf("without the index: found %v, %v", found, err)
	}
	for _, name := range []string{"find", "count", "aggregate", "listIndexes", "createIndexes"} {
		if got := sent.take(name); len(got) > 0 {
			t.Errorf("without the index it sends %v", got)
		}
	}
	b.makeIndex(t)
	few := b.few(t, incremental)
	looks := sent.take("find")
	for i, find := range looks {
		hint, _ := find.Lookup("hint").StringValueOK()
		if want := "codex_jobs_syncedAt"; hint != want && (hint != want+"_arrays" || i > 0) {
			t.Errorf("the hint is %q of %v", hint, find)
		}
	}
	if len(looks) == 0 {
		t.Error("it asks for nothing")
	}
	if got := few.scan(t, incremental, nil); len(got) != 1 {
		t.Errorf("read %v", keys(got))
	}
	scans := sent.take("find")
	if len(scans) != 1 || scans[0].Lookup("hint", "_id").IsZero() || !strings.Contains(scans[0].String(), `"$in"`) {
		t.Errorf("reads with %v", scans)
	}
	if n, err := few.store.Count(t.Context(), incremental, syncrun.Range{}); n != 1 || err != nil || len(sent.take("aggregate"))+len(sent.take("count")) > 1 {
		t.Errorf("counted %d, %v", n, err)
	}
}

// TestMakeIndexOfNothing checks that no collection is made that a wrong name asks for.
func TestMakeIndexOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.store.MakeIndex(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if exists, err := b.store.Exists(t.Context()); exists || err != nil {
		t.Errorf("the collection exists: %v, %v", exists, err)
	}
}

// TestMakeIndexIsRefused checks what the error says, and that the index is not used then.
func TestMakeIndexIsRefused(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertFresh(t, 1)
	proxy.Inject(faultproxy.Fault{Command: "createIndexes", Code: unauthorized, Message: "not authorized on codex to execute command"})
	if err := b.store.MakeIndex(t.Context()); !LacksRight(err) || errors.Is(err, syncrun.ErrUnavailable) || b.store.indexed.Load() {
		t.Errorf("%v; used: %v", err, b.store.indexed.Load())
	}
	proxy.Inject(faultproxy.Fault{Command: "createIndexes", Kind: faultproxy.CutAfter})
	if err := b.store.MakeIndex(t.Context()); !errors.Is(err, syncrun.ErrUnavailable) || b.store.indexed.Load() {
		t.Errorf("%v; used: %v", err, b.store.indexed.Load())
	}
}

// TestKeepIndex says once why there is no index, and uses it once there is one.
func TestKeepIndex(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	b.insertFresh(t, 1)
	log, logger := testbed.NewLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	var keeping sync.WaitGroup
	defer keeping.Wait()
	defer cancel()
	proxy.Inject(faultproxy.Fault{Command: "createIndexes", Code: 11600, Message: "interrupted at shutdown"}) // which is no news
	proxy.Inject(faultproxy.Fault{Command: "createIndexes", Kind: faultproxy.CutBefore})
	proxy.Inject(faultproxy.Fault{Command: "createIndexes", Code: unauthorized, Message: "not authorized"})
	keeping.Go(func() { b.store.KeepIndex(ctx, logger) })
	testbed.Await(t, log, 1, procs.Match{Msg: "The user of MongoDB lacks a right for the index of SYNC_INDEX", Attrs: procs.Attrs{
		"level": "WARN", "right": "createIndex", "collection": b.store.Name(), "index": "codex_jobs_lastSynced",
	}})
	if got := log.Find(procs.Match{Msg: "Could not make the index for incremental runs yet, trying again", Attrs: procs.Attrs{"level": "DEBUG"}}); len(got) != 2 {
		t.Errorf("it tried again %d times, want 2", len(got))
	}
	if b.store.indexed.Load() {
		t.Error("the index is used")
	}
}
