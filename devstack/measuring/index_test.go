package measuring

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	byStamp = "by_stamp"
	arrays  = "arrays"
)

// newCollection returns a collection with an index on the field "at", and one of its arrays.
func newCollection(t *testing.T, documents ...bson.D) *collection {
	t.Helper()
	c := new(collection)
	isArray := bson.D{{Key: "at", Value: bson.D{{Key: "$type", Value: "array"}}}}
	for _, spec := range []bson.D{
		{{Key: "name", Value: byStamp}, {Key: "key", Value: bson.D{{Key: "at", Value: 1}, {Key: "_id", Value: 1}}}},
		{{Key: "name", Value: arrays}, {Key: "key", Value: bson.D{{Key: "at", Value: 1}, {Key: "_id", Value: -1}}}, {Key: "partialFilterExpression", Value: isArray}},
	} {
		x, err := newIndex(encode(spec))
		if err == nil {
			err = c.addIndex(x)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range documents {
		if err := c.insert([]bson.Raw{encode(d)}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// walked returns the _ids of the documents that a find by an index walks over, in its order, and whether the keys were enough.
func walked(t *testing.T, c *collection, index string, filter bson.D) (ids []string, covered bool) {
	t.Helper()
	found, covered, err := c.hinted(index, encode(filter), map[string]bool{"_id": true})
	if err != nil {
		t.Fatal(err)
	}
	for d := found(); d != nil; d = found() {
		ids = append(ids, d.id.StringValue())
	}
	return ids, covered
}

func TestFindWalksBetweenBounds(t *testing.T) {
	t.Parallel()
	values := map[string]any{
		"null": nil, "NaN": math.NaN(), "int": int32(7), "decimal": bson.NewDecimal128(0x3040000000000000, 9), "string": "x", "symbol": bson.Symbol("y"),
		"document": bson.D{}, "bool": true, "1": bson.DateTime(1), "2": bson.DateTime(2), "3": bson.DateTime(3), "timestamp": bson.Timestamp{T: 1},
		"regex": bson.Regex{Pattern: "x"}, "min": bson.MinKey{}, "max": bson.MaxKey{},
	}
	documents := []bson.D{{{Key: "_id", Value: "missing"}}}
	for name, v := range values {
		documents = append(documents, bson.D{{Key: "_id", Value: name}, {Key: "at", Value: v}})
	}
	c := newCollection(t, documents...)
	is := func(operator string, operand any) bson.D {
		return bson.D{{Key: "at", Value: bson.D{{Key: operator, Value: operand}}}}
	}
	all := []string{"min", "missing", "null", "NaN", "int", "decimal", "string", "symbol", "document", "bool", "1", "2", "3", "timestamp", "regex", "max"}
	for _, test := range []struct {
		filter  bson.D
		want    []string
		covered bool
	}{
		{bson.D{}, all, true},
		{is("$lte", bson.DateTime(2)), []string{"1", "2"}, true},
		{is("$lt", bson.DateTime(2)), []string{"1"}, true},
		{is("$gte", bson.DateTime(2)), []string{"2", "3"}, true},
		{is("$gt", bson.DateTime(2)), []string{"3"}, true},
		{bson.D{{Key: "at", Value: bson.D{{Key: "$gt", Value: bson.DateTime(1)}, {Key: "$lt", Value: bson.DateTime(3)}}}}, []string{"2"}, true},
		{bson.D{{Key: "at", Value: bson.DateTime(3)}}, []string{"3"}, true},
		{bson.D{{Key: "at", Value: nil}}, []string{"missing", "null"}, false},
		{is("$type", bson.A{"timestamp", "number", "string"}), []string{"NaN", "int", "decimal", "string", "symbol", "timestamp"}, true},
		{is("$type", "undefined"), nil, false},
		{is("$type", "array"), all, false},
		{is("$not", bson.D{{Key: "$type", Value: "date"}}), all, false},
		{bson.D{{Key: "$and", Value: bson.A{is("$exists", true), is("$type", bson.A{-1, 127})}}}, []string{"min", "max"}, false},
		{bson.D{{Key: "$or", Value: bson.A{is("$lte", bson.DateTime(2))}}}, all, false},
	} {
		got, covered := walked(t, c, byStamp, test.filter)
		if !slices.Equal(got, test.want) || covered != test.covered {
			t.Errorf("%v walks over %q, covered: %v; want %q, %v", test.filter, got, covered, test.want, test.covered)
		}
	}
	if _, _, err := c.hinted("other", nil, nil); err == nil {
		t.Error("an index that is not there was used")
	}
	if _, _, err := c.hinted(arrays, encode(is("$lte", bson.DateTime(2))), nil); err == nil {
		t.Error("an index of arrays was used for dates")
	}
}

// TestIndexFollows checks that indexes have what inserts, updates and deletes leave, and how many keys an update changes.
func TestIndexFollows(t *testing.T) {
	t.Parallel()
	c := newCollection(t)
	for i := range 5 {
		if err := c.insert([]bson.Raw{encode(bson.D{{Key: "_id", Value: fmt.Sprint(i)}, {Key: "at", Value: bson.DateTime(i)}})}); err != nil {
			t.Fatal(err)
		}
	}
	all := func(bson.Raw) bool { return true }
	set := func(id string, field string, v any, keys int) {
		t.Helper()
		d := c.find(encode(bson.D{{Key: "_id", Value: id}}).Lookup("_id"))
		_, changed, err := c.update(d, all, encode(bson.D{{Key: "$set", Value: bson.D{{Key: field, Value: v}}}}))
		if err != nil || changed != keys {
			t.Errorf("setting %s of %s to %v: %d keys changed, %v; want %d", field, id, v, changed, err, keys)
		}
	}
	check := func(index string, filter bson.D, covered bool, want ...string) {
		t.Helper()
		if got, is := walked(t, c, index, filter); !slices.Equal(got, want) || is != covered {
			t.Errorf("%s has %q, covered: %v; want %q", index, got, is, want)
		}
	}
	isArray := bson.D{{Key: "at", Value: bson.D{{Key: "$type", Value: "array"}}}}
	set("1", "at", bson.DateTime(9), 2)
	set("2", "name", "ada", 0)
	check(byStamp, bson.D{}, true, "0", "2", "3", "4", "1")
	check(arrays, isArray, false)
	set("3", "at", bson.A{bson.DateTime(-1), bson.DateTime(8)}, 5) // one key for each element, and as many in the other index
	check(byStamp, bson.D{}, false, "3", "0", "2", "4", "1")
	check(arrays, isArray, false, "3")
	set("4", "at", bson.A{}, 3)
	check(byStamp, bson.D{}, false, "4", "3", "0", "2", "1")
	set("3", "at", bson.DateTime(3), 5)
	check(arrays, isArray, false, "4")
	if n := c.remove(func(d bson.Raw) bool { return d.Lookup("_id").StringValue() > "2" }); n != 2 {
		t.Errorf("removed %d", n)
	}
	check(byStamp, bson.D{}, false, "0", "2", "1")
	if err := c.dropIndexes(byStamp); err != nil {
		t.Error(err)
	}
	if err := c.dropIndexes(byStamp); err == nil {
		t.Error("an index was dropped twice")
	}
}

// TestStoreFindsFew uses the product's store: what it stamps is found by the index no more.
func TestStoreFindsFew(t *testing.T) {
	t.Parallel()
	server, err := Start(t.TempDir(), Costs{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongodb.Connect(server.URI(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	const users, due, freshness = 3000, 150, 20 * time.Minute
	now := time.Now().Truncate(time.Millisecond)
	var documents []bson.D
	for i := range users {
		stamp := now.Add(-freshness / 2)
		if i%(users/due) == 0 {
			stamp = now.Add(-2 * freshness)
		}
		documents = append(documents, bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "lastSynced", Value: stamp}})
	}
	if _, err := client.Database("codex").Collection("users").InsertMany(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
	store := mongodb.NewStore(client, "codex", mongodb.Config{Collection: "users"})
	if err := store.MakeIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	look := func(reference time.Time) []syncrun.Record {
		t.Helper()
		sel := syncrun.Selection{Reference: reference, Freshness: freshness}
		few, found, err := store.Few(t.Context(), sel)
		if err != nil || !found {
			t.Fatalf("%v, %v", found, err)
		}
		cursor, err := few.Scan(t.Context(), sel, syncrun.Range{})
		if err != nil {
			t.Fatal(err)
		}
		defer cursor.Close()
		records := make([]syncrun.Record, users)
		n, err := cursor.Read(t.Context(), records)
		if err != nil {
			t.Fatal(err)
		}
		return records[:n]
	}
	records := look(now)
	if len(records) != due {
		t.Fatalf("%d are due, want %d", len(records), due)
	}
	var writers sync.WaitGroup
	for batch := range slices.Chunk(records, due/5) { // at the same time
		writers.Go(func() {
			updates := make([]syncrun.Update, len(batch))
			for i, r := range batch {
				updates[i].Record = r
			}
			if _, err := store.Stamp(t.Context(), updates, syncrun.Selection{Reference: now}); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if left := look(now.Add(time.Minute)); len(left) != 0 {
		t.Errorf("a minute later %d are due", len(left))
	}
}
