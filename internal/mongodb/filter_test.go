package mongodb

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// ofTenantA is a filter with an $or of its own, as the selection has one.
var ofTenantA = bson.D{
	{Key: "tenant", Value: "a"},
	{Key: "$or", Value: bson.A{
		bson.D{{Key: "archived", Value: false}}, bson.D{{Key: "archived", Value: bson.D{{Key: "$exists", Value: false}}}},
	}},
}

// TestFilter visits those records of a mixed collection that take part, in full and incremental runs, as a whole and by ranges.
func TestFilter(t *testing.T) {
	t.Parallel()
	b := setupAt(t, serverURI(t), Config{Filter: ofTenantA, Fields: []string{}})
	unfiltered := NewStore(b.client, b.users.Database().Name(), Config{Collection: "users"})
	const records, size = 120, 13
	takesPart := make(map[string][]string) // the names of those that a run visits
	for i := range records {
		name := fmt.Sprintf("user%03d", i)
		doc := bson.D{
			{Key: "_id", Value: []any{int32(i), name, bson.ObjectID{11: byte(i)}}[i%3]}, {Key: "username", Value: name},
			{Key: "tenant", Value: []string{"a", "b"}[i/3%2]},
			{Key: lastSynced, Value: []any{nil, at(-time.Minute), at(-time.Hour)}[i/6%3]},
		}
		if i%5 < 2 {
			doc = append(doc, bson.E{Key: "archived", Value: i%5 == 0})
		}
		b.insert(t, doc)
		if i/3%2 == 0 && i%5 > 0 {
			takesPart["full"] = append(takesPart["full"], name)
			if i/6%3 != 1 {
				takesPart["incremental"] = append(takesPart["incremental"], name)
			}
		}
	}
	if full, due := len(takesPart["full"]), len(takesPart["incremental"]); due == 0 || due == full || full == records {
		t.Fatalf("%d of %d take part, and %d are due", full, records, due)
	}
	ranges := b.split(t, size)
	var sizes []int
	for _, r := range ranges {
		n, err := unfiltered.Count(t.Context(), everything, r)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, int(n))
	}
	checkSizes(t, sizes, size, records, false) // of all records: a split looks at the index only

	for run, sel := range map[string]syncrun.Selection{"full": everything, "incremental": incremental} {
		for what, ranges := range map[string][]syncrun.Range{"the whole": {{}}, "the ranges": ranges} {
			var read []syncrun.Record
			for _, r := range ranges {
				found := b.scanRange(t, sel, r)
				if n, err := b.store.Count(t.Context(), sel, r); err != nil || n != int64(len(found)) {
					t.Errorf("%s, %s: from %v to %v: counted %d, read %d (%v)", run, what, keyName(r.After), keyName(r.Upto), n, len(found), err)
				}
				read = append(read, found...)
			}
			if got, want := names(read), takesPart[run]; !slices.Equal(got, want) {
				t.Errorf("%s, %s: read\n     %q\nwant %q", run, what, got, want)
			}
		}
	}

	// What was read is stamped, even if it no longer takes part.
	due := b.scan(t, incremental, nil)
	archive := bson.D{{Key: "$set", Value: bson.D{{Key: "archived", Value: true}}}}
	if _, err := b.users.UpdateMany(t.Context(), bson.D{}, archive); err != nil {
		t.Fatal(err)
	}
	list := updates(due)
	list[0].Set, list[1].Unset = map[string]any{"plan": "pro"}, []string{"plan"}
	if stamped := b.update(t, list, reference); stamped.Matched != int64(len(due)) {
		t.Errorf("matched %d of %d", stamped.Matched, len(due))
	}
	if n, err := b.store.Count(t.Context(), everything, syncrun.Range{}); err != nil || n != 0 {
		t.Errorf("%d take part when all are archived (%v)", n, err)
	}
}

// TestFilterOfAModel has filters on _ids of all types, in all ranges of a collection.
func TestFilterOfAModel(t *testing.T) {
	t.Parallel()
	values := orderedValues(t)
	m := model{matcher: newMatcher(t, values), present: slices.Repeat([]bool{true}, len(values))}
	for name, filter := range map[string]bson.D{
		"none":       nil,
		"empty":      {},
		"one type":   id("$type", "number"),
		"not a type": idNot("$type", "string"),
		"two types": {{Key: "$or", Value: bson.A{id("$gt", "aa"), id("$type", "objectId")}}, {Key: "_id", Value: bson.D{
			{Key: "$not", Value: bson.D{{Key: "$gte", Value: "c"}}},
		}}},
		"nothing": idNot("$exists", true),
	} {
		store := Store{Config: Config{Filter: filter}.withDefaults()}
		for _, size := range []int{3, 17} {
			ranges := splitAll(t, size, func(after []byte, size int) ([]byte, error) { return endOfRange(after, size, m.pair, m.edge) })
			var read []int
			for _, r := range ranges {
				in, err := conditions(r, false)
				if err != nil {
					t.Fatal(err)
				}
				exact, err := exactly(r, false)
				if err != nil {
					t.Fatal(err)
				}
				scanned, counted := store.filter(everything, in), store.filter(everything, exact)
				found := 0
				for at := range values {
					if m.matches(at, scanned) && (at > 0 || r.After == nil) { // a cursor passes over MinKey
						read = append(read, at)
						found++
					}
					if m.matches(at, counted) {
						found--
					}
				}
				if found != 0 {
					t.Errorf("%s, by %d: from %v to %v: read %+d more than counted", name, size, keyName(r.After), keyName(r.Upto), found)
				}
			}
			var want []int
			for at := range values {
				if m.matches(at, filter) {
					want = append(want, at)
				}
			}
			if !slices.Equal(read, want) {
				t.Errorf("%s, by %d: read %v, want %v", name, size, read, want)
			}
		}
	}
}

// TestCommandsWithAFilter checks where the filter goes, and which index the server is told to use.
func TestCommandsWithAFilter(t *testing.T) {
	t.Parallel()
	var sent commands
	b := setupAt(t, serverURI(t), Config{Filter: ofTenantA}, sent.monitor)
	for i := range 6 {
		b.insert(t, bson.D{{Key: "_id", Value: i}, {Key: "tenant", Value: "a"}})
	}
	ranges := b.split(t, 2)
	for _, find := range sent.take("find") {
		if strings.Contains(find.String(), "tenant") {
			t.Errorf("the split sends %v", find)
		}
	}
	filter := rawValue(t, ofTenantA)
	for _, sel := range []syncrun.Selection{everything, incremental} {
		for i, r := range []syncrun.Range{{}, ranges[1]} { // the whole, and a part of one bracket
			b.scanRange(t, sel, r)
			if _, err := b.store.Count(t.Context(), sel, r); err != nil {
				t.Fatal(err)
			}
			scan, count := sent.take("find")[0], sent.take("aggregate")[0]
			place := fmt.Sprint(i) // behind the bounds, if there are any
			counted := count.Lookup("pipeline", "0", "$match", "$and", place)
			if !scan.Lookup("filter", "$and", place).Equal(filter) || !counted.Equal(filter) {
				t.Errorf("full: %v: the filter is not in\n%v\nnor in\n%v", sel.Full, scan, count)
			}
			if hint := scan.Lookup("hint", "_id"); hint.IsZero() {
				t.Errorf("reads without a hint: %v", scan)
			}
			// The whole can be counted with an index for the filter.
			if _, err := count.LookupErr("hint", "_id"); (err == nil) != (i == 1) {
				t.Errorf("range %d is counted with %v", i, count.Lookup("hint"))
			}
		}
	}
	list := updates(b.scan(t, everything, nil))
	list[1].Set = map[string]any{"plan": "pro"}
	b.update(t, list, reference)
	for _, command := range sent.take("update") {
		if strings.Contains(command.String(), "tenant") {
			t.Errorf("an update sends %v", command)
		}
	}
}
