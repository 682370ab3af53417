package mongodb

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

var everything = syncrun.Selection{Full: true, Reference: reference, Freshness: freshness}

// elements returns a document's elements as the server has them, without those that a sync writes.
func elements(t *testing.T, doc bson.Raw) []byte {
	t.Helper()
	list, err := doc.Elements()
	if err != nil {
		t.Fatal(err)
	}
	var kept []byte
	for _, e := range list {
		if e.Key() != lastSynced && e.Key() != updatedAt {
			kept = append(kept, e...)
		}
	}
	return kept
}

func lastSyncedOf(doc bson.Raw) any {
	v := doc.Lookup(lastSynced)
	if millis, ok := v.DateTimeOK(); ok {
		return bson.DateTime(millis)
	}
	return fmt.Sprintf("%v %v", v.Type, v)
}

// updates returns updates that set nothing but stamps.
func updates(records []syncrun.Record) []syncrun.Update {
	list := make([]syncrun.Update, len(records))
	for i, r := range records {
		list[i].Record = r
	}
	return list
}

func (b *testBundle) stamp(t *testing.T, records []syncrun.Record, reference time.Time) syncrun.Stamped {
	t.Helper()
	return b.update(t, updates(records), reference)
}

func (b *testBundle) update(t *testing.T, updates []syncrun.Update, reference time.Time) syncrun.Stamped {
	t.Helper()
	stamped, err := b.store.Stamp(t.Context(), updates, syncrun.Selection{Reference: reference, Freshness: freshness})
	if err != nil {
		t.Fatal(err)
	}
	if len(stamped.Failed) > 0 {
		t.Fatalf("%d failed, the first one, %v: %v", len(stamped.Failed), stamped.Failed[0].Record.ID, stamped.Failed[0].Err)
	}
	return stamped
}

// TestStamp stamps records with every type of value in lastSynced, twice.
func TestStamp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := stampedUsers(t)
	b.insertStamped(t, users)
	before := make(map[string]bson.Raw)
	for _, u := range users {
		before[u.name] = b.raw(t, u.name)
	}
	records := b.scan(t, everything, nil)
	started := time.Now().Add(-time.Second)

	for try := range 2 {
		stamped := b.stamp(t, records, reference)
		if stamped.Matched != int64(len(users)) {
			t.Errorf("try %d: matched %d of %d", try, stamped.Matched, len(users))
		}
		for _, u := range users {
			after := b.raw(t, u.name)
			want := at(0)
			if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(latest) {
				want = d // stamped by a later run
			}
			if got := lastSyncedOf(after); got != want {
				t.Errorf("try %d: %s: lastSynced is %v, want %v", try, u.name, got, want)
			}
			if updated, ok := after.Lookup(updatedAt).TimeOK(); !ok || updated.Before(started) || updated.After(time.Now().Add(time.Second)) {
				t.Errorf("try %d: %s: updatedAt is %v", try, u.name, after.Lookup(updatedAt))
			}
			if !bytes.Equal(elements(t, after), elements(t, before[u.name])) {
				t.Errorf("try %d: %s: other fields changed from %v to %v", try, u.name, before[u.name], after)
			}
		}
	}
	for _, r := range b.scan(t, incremental, nil) {
		if doc := b.raw(t, r.Name); lastSyncedOf(doc) != at(0) {
			t.Errorf("%s is still due", r.Name)
		}
	}
}

// TestStampLeavesTheRest checks that the other fields of a document stay, with _ids of every type.
func TestStampLeavesTheRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var docs []bson.D
	ids := []any{
		bson.NewObjectID(), "legacy-000003", int32(100021), int64(1000000000348), 2.5, true, bson.DateTime(5),
		bson.Timestamp{T: 1, I: 1}, bson.Binary{Subtype: 4, Data: make([]byte, 16)}, bson.D{{Key: "org", Value: 1}, {Key: "n", Value: "x"}},
	}
	for i, id := range ids {
		docs = append(docs, bson.D{
			{Key: "zeta", Value: int32(i)}, {Key: "_id", Value: id}, {Key: "username", Value: fmt.Sprint("user", i)},
			{Key: updatedAt, Value: "yesterday"}, {Key: "int", Value: int32(1)}, {Key: "long", Value: int64(1)}, {Key: "double", Value: 1.0},
			{Key: "nested", Value: bson.D{{Key: lastSynced, Value: "mine"}, {Key: "b", Value: bson.A{int64(1), nil, ""}}, {Key: "a", Value: bson.D{}}}},
			{Key: "", Value: "empty name"}, {Key: "alpha", Value: bson.Regex{Pattern: "a", Options: "i"}},
		})
	}
	if !allTypes(t) {
		for i := range docs {
			docs[i] = slices.DeleteFunc(docs[i], func(e bson.E) bool { return e.Key == "" })
		}
	}
	b.insert(t, docs...)
	before := make([]bson.Raw, len(ids))
	for i, id := range ids {
		before[i] = b.raw(t, id)
	}
	records := b.scan(t, incremental, nil)
	if stamped := b.stamp(t, records, reference); stamped.Matched != int64(len(ids)) {
		t.Errorf("matched %d of %d", stamped.Matched, len(ids))
	}
	for i, id := range ids {
		after := b.raw(t, id)
		if !bytes.Equal(elements(t, after), elements(t, before[i])) {
			t.Errorf("%v: other fields changed from %v to %v", id, before[i], after)
		}
		if lastSyncedOf(after) != at(0) {
			t.Errorf("%v: lastSynced is %v", id, lastSyncedOf(after))
		}
	}
}

func TestStaleWriterSetsNothingBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// What the stale writer read before it was held up, of every type.
	b.insert(t,
		bson.D{{Key: "_id", Value: "old"}, {Key: lastSynced, Value: at(-time.Hour)}},
		bson.D{{Key: "_id", Value: "missing"}},
		bson.D{{Key: "_id", Value: "future"}, {Key: lastSynced, Value: at(1000 * time.Hour)}},
		bson.D{{Key: "_id", Value: "array"}, {Key: lastSynced, Value: bson.A{at(time.Minute)}}},
		bson.D{{Key: "_id", Value: "timestamp"}, {Key: lastSynced, Value: bson.Timestamp{T: 1}}},
	)
	stale := b.scan(t, incremental, nil)

	later := incremental
	later.Reference = reference.Add(freshness)
	if stamped := b.stamp(t, b.scan(t, later, nil), later.Reference); stamped.Matched != 5 {
		t.Fatalf("the later run matched %d of 5", stamped.Matched)
	}
	b.stamp(t, stale, reference)
	for _, r := range stale {
		if got := lastSyncedOf(b.raw(t, r.ID.String())); got != at(freshness) {
			t.Errorf("%v: the stale writer set lastSynced to %v", r.ID, got)
		}
	}
}

// TestStampReplacesWhatChangedMeanwhile replaces stamps of records that have changed since they were read.
func TestStampReplacesWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile any
		matched   int64
		want      bson.DateTime
	}{
		"a valid stamp of a later run":   {at(time.Minute), 0, at(time.Minute)},
		"an older stamp":                 {at(-time.Hour), 1, at(0)},
		"this run's":                     {at(0), 1, at(0)},
		"the last that is believed":      {at(latest), 0, at(latest)},
		"the first that is not believed": {at(latest + time.Millisecond), 1, at(0)},
		"null":                           {nil, 1, at(0)},
		"an array of valid stamps":       {bson.A{at(time.Minute)}, 1, at(0)},
		"an array around valid stamps":   {bson.A{at(-time.Hour), at(48 * time.Hour)}, 1, at(0)},
		"a timestamp":                    {bson.Timestamp{T: 1}, 1, at(0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.insert(t, bson.D{{Key: "_id", Value: "u"}, {Key: lastSynced, Value: at(1000 * time.Hour)}})
			records := b.scan(t, incremental, nil)
			if _, err := b.users.UpdateByID(t.Context(), "u", bson.D{{Key: "$set", Value: stamp(test.meanwhile)}}); err != nil {
				t.Fatal(err)
			}
			if stamped := b.stamp(t, records, reference); stamped.Matched != test.matched {
				t.Errorf("matched %d, want %d", stamped.Matched, test.matched)
			}
			if got := lastSyncedOf(b.raw(t, "u")); got != test.want {
				t.Errorf("lastSynced is %v, want %v", got, test.want)
			}
		})
	}
}

func TestDeletedRecordIsNotMatched(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t, bson.D{{Key: "_id", Value: 1}}, bson.D{{Key: "_id", Value: 2}}, bson.D{{Key: "_id", Value: 3}})
	records := b.scan(t, incremental, nil)
	if _, err := b.users.DeleteOne(t.Context(), bson.D{{Key: "_id", Value: 2}}); err != nil {
		t.Fatal(err)
	}
	if stamped := b.stamp(t, records, reference); stamped.Matched != 2 {
		t.Errorf("matched %d, want 2", stamped.Matched)
	}
	if n, err := b.users.CountDocuments(t.Context(), bson.D{}); err != nil || n != 2 {
		t.Errorf("%d records are left, want 2 (%v)", n, err)
	}
}

func TestStampNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if stamped := b.stamp(t, nil, reference); stamped.Matched != 0 {
		t.Errorf("matched %d", stamped.Matched)
	}
	if n, err := b.store.Count(t.Context(), incremental, syncrun.Range{}); err != nil || n != 0 {
		t.Errorf("counted %d in a collection that is not there (%v)", n, err)
	}
	if records := b.scan(t, incremental, nil); len(records) != 0 {
		t.Errorf("read %d records of a collection that is not there", len(records))
	}
	if upto, err := b.store.EndOfRange(t.Context(), nil, 1); err != nil || upto != nil {
		t.Errorf("a range of a collection that is not there ends at %x (%v)", upto, err)
	}
}

// some is what the tests set besides stamps, of every type, and how it reads back.
func some(n int32) (set map[string]any, want bson.D) {
	return map[string]any{
			"plan": fmt.Sprint("plan ", n), "logins": n, "checked": reference, "none": nil,
			"quota": map[string]any{"disk": int64(1) << 40}, "tags": []string{"a", "b"}, "nested.b": true, "lastSyncedBy": "me",
		}, bson.D{
			{Key: "plan", Value: fmt.Sprint("plan ", n)}, {Key: "logins", Value: n}, {Key: "checked", Value: at(0)}, {Key: "none", Value: nil},
			{Key: "quota", Value: bson.D{{Key: "disk", Value: int64(1) << 40}}}, {Key: "tags", Value: bson.A{"a", "b"}},
			{Key: "nested", Value: bson.D{{Key: "a", Value: int32(1)}, {Key: "b", Value: true}}}, {Key: "lastSyncedBy", Value: "me"},
		}
}

// TestStampSets sets fields of records with every type of value in lastSynced, twice.
func TestStampSets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := stampedUsers(t)
	for _, u := range users {
		b.insert(t, append(u.doc(), bson.E{Key: "plan", Value: 0}, bson.E{Key: "nested", Value: bson.D{{Key: "a", Value: int32(1)}}}))
	}
	before := make(map[string]bson.Raw)
	for _, u := range users {
		before[u.name] = b.raw(t, u.name)
	}
	set, want := some(7)
	var list []syncrun.Update
	for _, r := range b.scan(t, everything, nil) {
		list = append(list, syncrun.Update{Record: r, Set: set})
	}
	started := time.Now().Add(-time.Second)

	for try := range 2 {
		matched := int64(0)
		stamped := b.update(t, list, reference)
		for _, u := range users {
			after := b.raw(t, u.name)
			if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(latest) {
				if !bytes.Equal(after, before[u.name]) { // stamped by a later run
					t.Errorf("try %d: %s: changed from %v to %v", try, u.name, before[u.name], after)
				}
				continue
			}
			matched++
			for _, e := range want {
				if got := after.Lookup(e.Key); !got.Equal(rawValue(t, e.Value)) {
					t.Errorf("try %d: %s: %s is %v, want %v", try, u.name, e.Key, got, e.Value)
				}
			}
			if got := lastSyncedOf(after); got != at(0) {
				t.Errorf("try %d: %s: lastSynced is %v", try, u.name, got)
			}
			if updated, ok := after.Lookup(updatedAt).TimeOK(); !ok || updated.Before(started) || updated.After(time.Now().Add(time.Second)) {
				t.Errorf("try %d: %s: updatedAt is %v", try, u.name, after.Lookup(updatedAt))
			}
			for _, untouched := range []string{"_id", "username", "roles"} {
				if !after.Lookup(untouched).Equal(before[u.name].Lookup(untouched)) {
					t.Errorf("try %d: %s: %s became %v", try, u.name, untouched, after.Lookup(untouched))
				}
			}
		}
		if stamped.Matched != matched {
			t.Errorf("try %d: matched %d, want %d", try, stamped.Matched, matched)
		}
	}
}

// TestStaleWriterSetsNothing has a writer that is held up until a later run has set other values.
func TestStaleWriterSetsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t,
		bson.D{{Key: "_id", Value: "old"}, {Key: lastSynced, Value: at(-time.Hour)}},
		bson.D{{Key: "_id", Value: "missing"}},
		bson.D{{Key: "_id", Value: "future"}, {Key: lastSynced, Value: at(1000 * time.Hour)}},
		bson.D{{Key: "_id", Value: "array"}, {Key: lastSynced, Value: bson.A{at(time.Minute)}}},
	)
	setting := func(records []syncrun.Record, value string) []syncrun.Update {
		list := updates(records)
		for i := range list {
			list[i].Set = map[string]any{"plan": value, "only " + value: true}
		}
		return list
	}
	stale := setting(b.scan(t, incremental, nil), "stale")
	later := incremental
	later.Reference = reference.Add(freshness)
	if stamped := b.update(t, setting(b.scan(t, later, nil), "later"), later.Reference); stamped.Matched != 4 {
		t.Fatalf("the later run matched %d of 4", stamped.Matched)
	}
	if stamped := b.update(t, stale, reference); stamped.Matched != 0 {
		t.Errorf("the stale writer matched %d", stamped.Matched)
	}
	for _, u := range stale {
		doc := b.raw(t, u.Record.ID.String())
		_, err := doc.LookupErr("only stale")
		if doc.Lookup("plan").StringValue() != "later" || err == nil || lastSyncedOf(doc) != at(freshness) {
			t.Errorf("%v: the stale writer left %v", u.Record.ID, doc)
		}
	}
}

// TestStampRemoves removes fields of records with every type of value in lastSynced, twice.
func TestStampRemoves(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]map[string]any{
		"alone": nil, "beside others that are set": {"nested.c": "new", "planned": true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			users := stampedUsers(t)
			for _, u := range users {
				b.insert(t, append(u.doc(), bson.E{Key: "plan", Value: "pro"}, bson.E{Key: "nested", Value: bson.D{
					{Key: "a", Value: int32(1)}, {Key: "b", Value: int32(2)},
				}}))
			}
			before := make(map[string]bson.Raw)
			for _, u := range users {
				before[u.name] = b.raw(t, u.name)
			}
			var list []syncrun.Update
			for _, r := range b.scan(t, everything, nil) {
				list = append(list, syncrun.Update{Record: r, Set: set, Unset: []string{"plan", "nested.a", "absent", "plan"}})
			}
			started := time.Now().Add(-time.Second)

			for try := range 2 {
				matched := int64(0)
				stamped := b.update(t, list, reference)
				for _, u := range users {
					after := b.raw(t, u.name)
					if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(latest) {
						if !bytes.Equal(after, before[u.name]) { // stamped by a later run
							t.Errorf("try %d: %s: changed from %v to %v", try, u.name, before[u.name], after)
						}
						continue
					}
					matched++
					for _, path := range [][]string{{"plan"}, {"nested", "a"}, {"absent"}} {
						if v, err := after.LookupErr(path...); err == nil {
							t.Errorf("try %d: %s: %v is still %v", try, u.name, path, v)
						}
					}
					for path, want := range set {
						if got := after.Lookup(strings.Split(path, ".")...); !got.Equal(rawValue(t, want)) {
							t.Errorf("try %d: %s: %s is %v, want %v", try, u.name, path, got, want)
						}
					}
					if got := lastSyncedOf(after); got != at(0) {
						t.Errorf("try %d: %s: lastSynced is %v", try, u.name, got)
					}
					if updated, ok := after.Lookup(updatedAt).TimeOK(); !ok || updated.Before(started) {
						t.Errorf("try %d: %s: updatedAt is %v", try, u.name, after.Lookup(updatedAt))
					}
					for _, path := range [][]string{{"_id"}, {"username"}, {"roles"}, {"nested", "b"}} {
						if !after.Lookup(path...).Equal(before[u.name].Lookup(path...)) {
							t.Errorf("try %d: %s: %v became %v", try, u.name, path, after.Lookup(path...))
						}
					}
				}
				if stamped.Matched != matched {
					t.Errorf("try %d: matched %d, want %d", try, stamped.Matched, matched)
				}
			}
		})
	}
}

// TestStampSendsNoEmptyOperator checks that an update has no operator without fields, which older servers refuse.
func TestStampSendsNoEmptyOperator(t *testing.T) {
	t.Parallel()
	store := Store{Config: Config{}.withDefaults()}
	stamps := store.newStamps(incremental)
	for name, test := range map[string]struct {
		update syncrun.Update
		want   []string
	}{
		"set":           {syncrun.Update{Set: map[string]any{"a": 1}, Unset: []string{}}, []string{"$set", "$currentDate"}},
		"unset":         {syncrun.Update{Set: map[string]any{}, Unset: []string{"a"}}, []string{"$set", "$unset", "$currentDate"}},
		"set and unset": {syncrun.Update{Set: map[string]any{"a": 1}, Unset: []string{"b"}}, []string{"$set", "$unset", "$currentDate"}},
	} {
		change, err := stamps.change(test.update)
		if err != nil {
			t.Fatal(err)
		}
		elements, err := change.Elements()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range elements {
			got = append(got, e.Key())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: the operators are %v, want %v", name, got, test.want)
		}
	}
}

// TestStampRefusesFields has a record for each field that must not change, and a good record behind each of them.
func TestStampRefusesFields(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{BulkSize: 4})
	type fields = map[string]any
	bad := []struct {
		set   fields
		unset []string
		want  string // how the reason begins
	}{
		{fields{"_id": "other"}, nil, `setting field "_id": `},
		{fields{"_id.x": 1}, nil, `setting field "_id.x": `},
		{fields{lastSynced: reference}, nil, `setting field "lastSynced": only the sync itself`},
		{fields{"lastSynced.x": 1}, nil, `setting field "lastSynced.x": only the sync itself`},
		{fields{updatedAt: nil}, nil, `setting field "updatedAt": only the sync itself`},
		{fields{"updatedAt.x": 1}, nil, `setting field "updatedAt.x": only the sync itself`},
		{fields{"": 1}, nil, `setting field "": `},
		{fields{"$": 1}, nil, `setting field "$": `},
		{fields{"$inc": fields{"n": 1}}, nil, `setting field "$inc": `},
		{fields{"$set.x": 1}, nil, `setting field "$set.x": `},
		{fields{".x": 1}, nil, `setting field ".x": `},
		{fields{"x.": 1}, nil, `setting field "x.": `},
		{fields{"x..y": 1}, nil, `setting field "x..y": `},
		{fields{"zero\x00byte": 1}, nil, `setting field "zero\x00byte": `},
		{fields{"value": make(chan int)}, nil, `setting fields: `},
		{fields{"a": 1, "b": 2, lastSynced: 3}, nil, `setting field "lastSynced": only the sync itself`},

		{nil, []string{"_id"}, `removing field "_id": `},
		{nil, []string{"_id.x"}, `removing field "_id.x": `},
		{nil, []string{"a", lastSynced}, `removing field "lastSynced": only the sync itself`},
		{nil, []string{"lastSynced.x"}, `removing field "lastSynced.x": only the sync itself`},
		{nil, []string{updatedAt}, `removing field "updatedAt": only the sync itself`},
		{nil, []string{"updatedAt.x"}, `removing field "updatedAt.x": only the sync itself`},
		{nil, []string{""}, `removing field "": `},
		{nil, []string{"$unset"}, `removing field "$unset": `},
		{nil, []string{"x..y"}, `removing field "x..y": `},
		{nil, []string{"zero\x00byte"}, `removing field "zero\x00byte": `},
		{fields{"good": 1}, []string{"_id"}, `removing field "_id": `},

		{fields{"a": 1}, []string{"a"}, `setting field "a": it is set and removed`},
		{fields{"a.b": 1}, []string{"c", "a.b"}, `setting field "a.b": it is set and removed`},
		{fields{"a": 1, "a.b": 1}, nil, `setting field "a.b": "a", which it is part of, is set`},
		{fields{"a": 1, "a-b": 1, "a.b.c": 1}, nil, `setting field "a.b.c": "a", which it is part of, is set`},
		{fields{"a.b": 1, "a.b.c.d": 1}, nil, `setting field "a.b.c.d": "a.b", which it is part of, is set`},
		{nil, []string{"a.b", "a"}, `removing field "a.b": "a", which it is part of, is set or removed`},
		{fields{"a": 1}, []string{"a.b"}, `removing field "a.b": "a", which it is part of, is set`},
		{fields{"a.b": 1}, []string{"a"}, `setting field "a.b": "a", which it is part of, is set or removed`},
	}
	b.insertNumbered(t, 2*len(bad)+4)
	list := updates(b.scan(t, incremental, nil))
	var refused []string
	for i, test := range bad {
		list[2*i].Set, list[2*i].Unset = test.set, test.unset
		// These only look like parts of each other.
		list[2*i+1].Set, list[2*i+1].Unset = fields{"plan": "pro", "planned": 1, "plan-b.x": 1}, []string{"pla", "plan-b.y", "plan-c"}
		refused = append(refused, list[2*i].Record.ID.String())
	}
	for i := len(list) - 4; i < len(list); i++ { // a whole bulk
		list[i].Set = fields{"_id": 1}
		refused = append(refused, list[i].Record.ID.String())
	}
	failing := list[5].Record.ID.String() // behind two that are not even sent
	inject(t, func() error { return proxy.FailUpdates(121, "Document failed validation", failing) })

	stamped, err := b.store.Stamp(t.Context(), list, incremental)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(len(bad) - 1); stamped.Matched != want {
		t.Errorf("matched %d, want %d", stamped.Matched, want)
	}
	reasons := make(map[string]string)
	for _, f := range stamped.Failed {
		reasons[f.Record.ID.String()] = f.Err.Error()
	}
	if len(stamped.Failed) != len(refused)+1 || len(reasons) != len(refused)+1 || reasons[failing] != "Document failed validation" {
		t.Errorf("%d failed, want %d: %v", len(stamped.Failed), len(refused)+1, reasons)
	}
	for i, id := range refused {
		want := `setting field "_id"`
		if i < len(bad) {
			want = bad[i].want
		}
		if reason, ok := reasons[id]; !ok || !strings.HasPrefix(reason, want) {
			t.Errorf("%s: the reason is %q, want %q", id, reason, want)
		}
	}
	for _, u := range list {
		_, notStamped := b.raw(t, u.Record.ID.String()).LookupErr(lastSynced)
		if _, fails := reasons[u.Record.ID.String()]; fails != (notStamped != nil) {
			t.Errorf("%v: failed: %v, stamped: %v", u.Record.ID, fails, notStamped == nil)
		}
	}
}

// TestOtherDateFields has records with every type of value in the field that the configuration names for the stamp. In the fields
// of the defaults they have values that would make the opposite due.
func TestOtherDateFields(t *testing.T) {
	t.Parallel()
	const synced, updated = "syncedAt", "touchedAt"
	b := setupAt(t, serverURI(t), Config{SyncedField: synced, UpdatedField: updated, Fields: []string{}})
	users := stampedUsers(t)
	var want []string
	before := make(map[string]bson.Raw)
	for _, u := range users {
		doc := u.doc()
		for i := range doc {
			if doc[i].Key == lastSynced {
				doc[i].Key = synced
			}
		}
		var decoy any
		if u.due {
			want, decoy = append(want, u.name), at(time.Millisecond)
		}
		b.insert(t, append(doc, bson.E{Key: lastSynced, Value: decoy}, bson.E{Key: updatedAt, Value: "mine"}))
		before[u.name] = b.raw(t, u.name)
	}
	slices.Sort(want)
	if got := names(b.scan(t, incremental, nil)); !slices.Equal(got, want) {
		t.Errorf("due are\n     %q\nwant %q", got, want)
	}
	if n, err := b.store.Count(t.Context(), incremental, syncrun.Range{}); err != nil || n != int64(len(want)) {
		t.Errorf("counted %d, want %d (%v)", n, len(want), err)
	}

	started := time.Now().Add(-time.Second)
	check := func(what string, updates []syncrun.Update, matched int) {
		t.Helper()
		if stamped := b.update(t, updates, reference); stamped.Matched != int64(matched) {
			t.Errorf("%s: matched %d, want %d", what, stamped.Matched, matched)
		}
		for _, u := range users {
			after := b.raw(t, u.name)
			stamp := at(0)
			if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(latest) {
				stamp = d // stamped by a later run
			}
			if got := after.Lookup(synced); !got.Equal(rawValue(t, stamp)) {
				t.Errorf("%s: %s: the stamp is %v, want %v", what, u.name, got, stamp)
			}
			if at, ok := after.Lookup(updated).TimeOK(); !ok || at.Before(started) {
				t.Errorf("%s: %s: the time of the update is %v", what, u.name, after.Lookup(updated))
			}
			for _, untouched := range []string{lastSynced, updatedAt, "roles"} {
				if !after.Lookup(untouched).Equal(before[u.name].Lookup(untouched)) {
					t.Errorf("%s: %s: %s became %v", what, u.name, untouched, after.Lookup(untouched))
				}
			}
		}
	}
	list := updates(b.scan(t, everything, nil))
	check("stamps alone", list, len(users))
	later := 0
	for i := range list {
		list[i].Set = map[string]any{"plan": "pro"}
	}
	for _, u := range users {
		if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(latest) {
			later++
		}
	}
	check("with a field", list, len(users)-later)

	record := list[0].Record
	for _, u := range []syncrun.Update{
		{Record: record, Set: map[string]any{synced: reference}}, {Record: record, Set: map[string]any{"touchedAt.x": 1}},
		{Record: record, Unset: []string{"syncedAt.x"}}, {Record: record, Unset: []string{updated}},
	} {
		stamped, err := b.store.Stamp(t.Context(), []syncrun.Update{u}, incremental)
		if err != nil || len(stamped.Failed) != 1 || !strings.HasSuffix(stamped.Failed[0].Err.Error(), "only the sync itself changes it") {
			t.Errorf("set %v, unset %v: %+v (%v)", u.Set, u.Unset, stamped, err)
		}
	}
	b.update(t, []syncrun.Update{{Record: record, Set: map[string]any{updatedAt: "yours"}, Unset: []string{lastSynced}}}, reference)
	doc := b.raw(t, record.Name)
	if _, err := doc.LookupErr(lastSynced); err == nil || doc.Lookup(updatedAt).StringValue() != "yours" {
		t.Errorf("the names of the defaults are not free for others: %v", doc)
	}
}
