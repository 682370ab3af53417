package mongodb

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

var everything = syncrun.Selection{Full: true, Reference: reference, Freshness: freshness}

// elements returns a document's elements as the server keeps them, apart from those that a sync run writes.
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

func (b *testBundle) stamp(t *testing.T, records []syncrun.Record, reference time.Time) syncrun.Stamped {
	t.Helper()
	stamped, err := b.store.Stamp(t.Context(), records, reference)
	if err != nil {
		t.Fatal(err)
	}
	if len(stamped.Failed) > 0 {
		t.Fatalf("%d failed, the first one, %v: %v", len(stamped.Failed), stamped.Failed[0].Record.ID, stamped.Failed[0].Err)
	}
	return stamped
}

// TestStamp stamps records with every kind of value in lastSynced, twice.
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
			if d, ok := u.value.(bson.DateTime); ok && d > at(0) && d <= at(syncrun.MaxClockError) {
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

// TestStampLeavesTheRest is about documents as they have grown, with _ids of every type.
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
	// What the stale writer read before it was held up, of every kind.
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

// TestStampReplacesWhatChangedMeanwhile is about a record whose stamp was to be replaced and is another by now.
func TestStampReplacesWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile any
		matched   int64
		want      bson.DateTime
	}{
		"a valid stamp of a later run":   {at(time.Hour), 0, at(time.Hour)},
		"an older stamp":                 {at(-time.Hour), 1, at(0)},
		"this run's":                     {at(0), 1, at(0)},
		"the last that is believed":      {at(syncrun.MaxClockError), 0, at(syncrun.MaxClockError)},
		"the first that is not believed": {at(syncrun.MaxClockError + time.Millisecond), 1, at(0)},
		"null":                           {nil, 1, at(0)},
		"an array of valid stamps":       {bson.A{at(time.Hour)}, 1, at(0)},
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
	if n, err := b.store.Count(t.Context(), incremental); err != nil || n != 0 {
		t.Errorf("counted %d in a collection that is not there (%v)", n, err)
	}
	if records := b.scan(t, incremental, nil); len(records) != 0 {
		t.Errorf("read %d records of a collection that is not there", len(records))
	}
}
