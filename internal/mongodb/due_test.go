package mongodb

import (
	"math"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// missing stands for a record without the field.
type missing struct{}

// stampedUser is a record with a value in lastSynced, and whether it is due at reference.
type stampedUser struct {
	name  string
	value any
	due   bool
}

func at(d time.Duration) bson.DateTime { return bson.NewDateTimeFromTime(reference.Add(d)) }

func stampedUsers(t *testing.T) []stampedUser {
	t.Helper()
	const ms, cutoff = time.Millisecond, -freshness
	users := []stampedUser{
		{"missing", missing{}, true},
		{"null", nil, true},
		{"empty string", "", true},
		{"ISO string", "2026-03-01T12:19:00.000Z", true},
		{"int", int32(1740000000), true},
		{"long", int64(1772367600000), true},
		{"double", 1772367600000.5, true},
		{"true", true, true},
		{"ObjectID", bson.NewObjectID(), true},
		{"binary", bson.Binary{Data: []byte{1, 2}}, true},
		{"document", bson.D{{Key: "date", Value: "2026-03-01"}}, true},
		{"document with a date", bson.D{{Key: "at", Value: at(0)}}, true},
		{"timestamp", bson.Timestamp{T: uint32(reference.Unix())}, true},
		{"timestamp of the future", bson.Timestamp{T: math.MaxUint32}, true},
		{"regular expression", bson.Regex{Pattern: "^2026"}, true},
		{"empty array", bson.A{}, true},
		{"array of fresh dates", bson.A{at(cutoff + ms), at(time.Minute)}, true},
		{"array of old dates", bson.A{at(2 * cutoff)}, true},
		{"array of anything", bson.A{"x", nil, at(time.Minute)}, true},

		{"long ago", at(-1000 * time.Hour), true},
		{"before 1970", bson.DateTime(-1), true},
		{"cutoff - 1 ms", at(cutoff - ms), true},
		{"cutoff", at(cutoff), true},
		{"cutoff + 1 ms", at(cutoff + ms), false},
		{"reference - 1 ms", at(-ms), false},
		{"reference", at(0), true},
		{"reference + 1 ms", at(ms), false},
		{"the latest that is believed", at(latest), false},
		{"the latest that is believed + 1 ms", at(latest + ms), true},
		{"far future", at(100 * 365 * 24 * time.Hour), true},
	}
	if allTypes(t) {
		users = append(users,
			stampedUser{"array of arrays of dates", bson.A{bson.A{at(time.Minute)}}, true},
			stampedUser{"decimal", decimal(t, "1.5"), true},
			stampedUser{"NaN", math.NaN(), true},
			stampedUser{"infinity", math.Inf(1), true},
			stampedUser{"symbol", bson.Symbol("x"), true},
			stampedUser{"undefined", bson.Undefined{}, true},
			stampedUser{"code", bson.JavaScript("x"), true},
			stampedUser{"MinKey", bson.MinKey{}, true},
			stampedUser{"MaxKey", bson.MaxKey{}, true},
		)
	}
	return users
}

func (u stampedUser) doc() bson.D {
	doc := bson.D{{Key: "_id", Value: u.name}, {Key: "username", Value: u.name}}
	if u.value != (missing{}) {
		doc = append(doc, bson.E{Key: lastSynced, Value: u.value})
	}
	return append(doc, bson.E{Key: "roles", Value: bson.A{"dev", int64(7), bson.D{{Key: "a", Value: 1.5}}}})
}

func (b *testBundle) insertStamped(t *testing.T, users []stampedUser) {
	t.Helper()
	for _, u := range users {
		if _, err := b.users.InsertOne(t.Context(), u.doc()); err != nil {
			t.Fatalf("%s: %v", u.name, err)
		}
	}
}

func names(records []syncrun.Record) []string {
	var list []string
	for _, r := range records {
		list = append(list, r.Name)
	}
	slices.Sort(list)
	return list
}

func TestDue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := stampedUsers(t)
	b.insertStamped(t, users)
	var want, all []string
	for _, u := range users {
		all = append(all, u.name)
		if u.due {
			want = append(want, u.name)
		}
	}
	slices.Sort(want)
	slices.Sort(all)

	check := func(what string, got, want []string, sel syncrun.Selection) {
		t.Helper()
		for _, name := range all {
			if is, should := slices.Contains(got, name), slices.Contains(want, name); is != should {
				t.Errorf("%s: %q selected: %v, want %v", what, name, is, should)
			}
		}
		n, err := b.store.Count(t.Context(), sel, syncrun.Range{})
		if err != nil {
			t.Fatal(err)
		}
		if n != int64(len(want)) {
			t.Errorf("%s: counted %d, want %d", what, n, len(want))
		}
	}
	check("incremental", names(b.scan(t, incremental, nil)), want, incremental)
	full := syncrun.Selection{Full: true, Reference: reference, Freshness: freshness}
	check("full", names(b.scan(t, full, nil)), all, full)

	// A whole tick later what the first run stamped is due to the millisecond, and a millisecond earlier it is not.
	next := incremental
	next.Reference = reference.Add(freshness)
	if got := names(b.scan(t, next, nil)); !slices.Contains(got, "reference") || slices.Contains(got, "reference + 1 ms") {
		t.Error("one tick later: what was stamped at the last tick must be due, what was stamped after it not")
	}
	next.Reference = next.Reference.Add(-time.Millisecond)
	if slices.Contains(names(b.scan(t, next, nil)), "reference") {
		t.Error("due a millisecond early")
	}
}

// TestSimplerFiltersAreWrong checks the table of TestDue: simpler filters must fail with it.
func TestSimplerFiltersAreWrong(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := stampedUsers(t)
	b.insertStamped(t, users)
	cutoff := at(-freshness)
	for name, filter := range map[string]bson.D{
		"$lt":                      stamp(bson.D{{Key: "$lt", Value: cutoff}}),
		"$lte":                     stamp(bson.D{{Key: "$lte", Value: cutoff}}),
		"missing":                  stamp(bson.D{{Key: "$exists", Value: false}}),
		"$lte, or missing":         {{Key: "$or", Value: bson.A{stamp(bson.D{{Key: "$lte", Value: cutoff}}), stamp(bson.D{{Key: "$exists", Value: false}})}}},
		"$lte, or missing, null":   {{Key: "$or", Value: bson.A{stamp(bson.D{{Key: "$lte", Value: cutoff}}), stamp(nil)}}},
		"not $gt":                  stamp(bson.D{{Key: "$not", Value: bson.D{{Key: "$gt", Value: cutoff}}}}),
		"not a date alone":         stamp(bson.D{{Key: "$not", Value: bson.D{{Key: "$type", Value: "date"}}}}),
		"$lte or not of type date": {{Key: "$or", Value: bson.A{stamp(bson.D{{Key: "$lte", Value: cutoff}}), stamp(bson.D{{Key: "$not", Value: bson.D{{Key: "$type", Value: "date"}}}})}}},
	} {
		found, err := b.users.Find(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		var docs []struct {
			Username string `bson:"username"`
		}
		if err := found.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for _, u := range users {
			if slices.ContainsFunc(docs, func(d struct {
				Username string `bson:"username"`
			}) bool {
				return d.Username == u.name
			}) != u.due {
				wrong++
			}
		}
		if wrong == 0 {
			t.Errorf("%s: the table does not tell it from the right filter", name)
		}
	}
}

func TestNamesOfRecords(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t,
		bson.D{{Key: "_id", Value: 1}, {Key: "username", Value: 42}},
		bson.D{{Key: "_id", Value: 2}, {Key: "username", Value: "ada"}},
		bson.D{{Key: "_id", Value: 3}},
	)
	var got []string
	for _, r := range b.scan(t, incremental, nil) {
		got = append(got, r.ID.String()+"="+r.Name)
	}
	if want := []string{"1=", "2=ada", "3="}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}

	for what, cfg := range map[string]Config{"a NameField": {Fields: []string{}}, "Fields": {NameField: "username"}} {
		cfg.Collection = "users"
		nameless := NewStore(b.client, b.users.Database().Name(), cfg)
		cursor, err := nameless.Scan(t.Context(), incremental, syncrun.Range{After: rawKey(t, int32(1))})
		if err != nil {
			t.Fatal(err)
		}
		defer cursor.Close()
		if r, ok, err := next(t, cursor); err != nil || !ok || r.Name != "" {
			t.Errorf("without %s: %+v, %v, %v", what, r, ok, err)
		}
	}
}

func TestExists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertNumbered(t, 1)
	for name, want := range map[string]bool{"users": true, "user": false, "issues": false} {
		if exists, err := NewStore(b.client, b.users.Database().Name(), Config{Collection: name}).Exists(t.Context()); err != nil || exists != want {
			t.Errorf("%s exists: %v, %v", name, exists, err)
		}
	}
}
