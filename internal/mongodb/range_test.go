package mongodb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// splitAll splits a collection into ranges of size records, as a run does.
func splitAll(t *testing.T, size int, endOfRange func(after []byte, size int) ([]byte, error)) []syncrun.Range {
	t.Helper()
	var ranges []syncrun.Range
	for next := (syncrun.Range{}); ; next.After = next.Upto {
		upto, err := endOfRange(next.After, size)
		if err != nil {
			t.Fatal(err)
		}
		next.Upto = upto
		ranges = append(ranges, next)
		if upto == nil {
			return ranges
		}
		if v := key(upto).value(); v.Type == bson.TypeMinKey || v.Type == bson.TypeMaxKey {
			t.Fatalf("a range ends at %v", v)
		}
		if len(ranges) > 10_000 {
			t.Fatal("it never ends")
		}
	}
}

func (b *testBundle) split(t *testing.T, size int) []syncrun.Range {
	t.Helper()
	return splitAll(t, size, func(after []byte, size int) ([]byte, error) { return b.store.EndOfRange(t.Context(), after, size) })
}

func keyName(k []byte) string {
	if k == nil {
		return "nothing"
	}
	return key(k).String()
}

// checkSizes checks how many records the ranges have: size, and the rest in the last one. In ranges of one record MinKey does
// not count, because it is no bound.
func checkSizes(t *testing.T, got []int, size, records int, minKey bool) {
	t.Helper()
	var want []int
	if size == 1 && minKey && records > 1 {
		want, records = []int{2}, records-2
	}
	for ; records > 0; records -= size {
		want = append(want, min(size, records))
	}
	if len(want) == 0 {
		want = []int{0}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the ranges have %v records, want %v", got, want)
	}
}

// TestConditionsSelectTheRange tries every beginning with every end.
func TestConditionsSelectTheRange(t *testing.T) {
	t.Parallel()
	m := newMatcher(t, orderedValues(t))
	plain := m
	plain.plain = true
	keyAt := func(at int) []byte {
		if at < 0 {
			return nil
		}
		return newKey(m.values[at])
	}
	// The first two and the last of each bracket, and some between.
	var places []int
	for at, v := range m.values {
		inBracket := func(at int) bool {
			return at >= 0 && at < len(m.values) && bracketOf(m.values[at].Type) == bracketOf(v.Type)
		}
		if at%4 == 0 || !inBracket(at-2) || !inBracket(at+1) {
			places = append(places, at)
		}
	}
	ends := append([]int{-1}, places...)
	for _, from := range ends {
		for _, to := range ends {
			r := syncrun.Range{After: keyAt(from), Upto: keyAt(to)}
			in, err := conditions(r, false)
			if err != nil {
				t.Fatal(err)
			}
			exact, err := exactly(r, false)
			if err != nil {
				t.Fatal(err)
			}
			isPlain := (from < 0 || !isRare(m.values[from])) && (to < 0 || !isRare(m.values[to]))
			for _, at := range places {
				v := m.values[at]
				want := at > from && (to < 0 || at <= to)
				if got := m.all(at, in); got != want && (v.Type != bson.TypeMinKey || r.After == nil) { // a cursor passes over MinKey
					t.Errorf("from %v to %v: selects %v = %v", keyName(r.After), keyName(r.Upto), v, got)
				}
				if got := m.all(at, exact); got != want {
					t.Errorf("from %v to %v: selects %v = %v exactly", keyName(r.After), keyName(r.Upto), v, got)
				}
				if isPlain && !isRare(v) {
					plain.all(at, exact)
				}
			}
			if isPlain && len(exact) > 0 {
				checkPlain(t, exact)
			}
		}
	}
}

// checkPlain checks that the conditions have no value of a rare type anywhere.
func checkPlain(t *testing.T, conditions bson.A) {
	t.Helper()
	var check func(v bson.RawValue)
	check = func(v bson.RawValue) {
		if isRare(v) {
			t.Errorf("sends %v", v)
		}
		if v.Type != bson.TypeArray && v.Type != bson.TypeEmbeddedDocument {
			return
		}
		elements, err := bson.Raw(v.Value).Elements()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range elements {
			check(e.Value())
		}
	}
	check(rawValue(t, conditions))
}

// TestNoConditionsButThoseNeeded checks that without ranges the filters have no conditions for them.
func TestNoConditionsButThoseNeeded(t *testing.T) {
	t.Parallel()
	if in, err := conditions(syncrun.Range{}, false); err != nil || in != nil {
		t.Errorf("for the whole collection: %v (%v)", in, err)
	}
	for _, v := range orderedValues(t) {
		k := newKey(v)
		in, err := conditions(syncrun.Range{After: k}, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := extJSON(t, in), extJSON(t, k.after()); !slices.Equal(got, want) {
			t.Errorf("behind %v:\n got %v\nwant %v", k, got, want)
		}
	}
	store := Store{Config: Config{}.withDefaults()}
	if got, want := store.filter(incremental, nil), stampField(lastSynced).selected(incremental); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the filter is %v, want %v", got, want)
	}
}

func TestExactBounds(t *testing.T) {
	t.Parallel()
	values := orderedValues(t)
	for i, a := range values {
		for _, b := range values[i+1:] {
			in, err := conditions(syncrun.Range{After: newKey(a), Upto: newKey(b)}, false)
			if err != nil {
				t.Fatal(err)
			}
			want := bracketOf(a.Type) == bracketOf(b.Type) && bracketOf(a.Type) >= 0 && !isNaN(a)
			exact := bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: a}, {Key: "$lte", Value: b}}}}
			if got := len(in) == 1 && fmt.Sprint(in[0]) == fmt.Sprint(exact); got != want {
				t.Errorf("from %v to %v: exact bounds: %v, want %v", a, b, got, want)
			}
		}
	}
}

// TestSplitOfAModel splits collections of all types in memory, because the server of a test may not take some types.
func TestSplitOfAModel(t *testing.T) {
	t.Parallel()
	values := orderedValues(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	open := make(map[bool]int) // ranges, by whether they are known to have _ids that are alike
	for round := range 60 {
		m := model{matcher: newMatcher(t, values), present: make([]bool, len(values))}
		density := random.Float64()
		records := 0
		for at := range values {
			// Whole brackets are missing every now and then.
			if m.present[at] = random.Float64() < density && (bracketOf(values[at].Type)+round)%3 > 0; m.present[at] {
				records++
			}
		}
		minKey := m.present[0]
		size := []int{1, 2, max(records/3, 1), max(records-1, 1), max(records, 1), records + 1, random.IntN(30) + 1}[round%7]
		ranges := splitAll(t, size, func(after []byte, size int) ([]byte, error) { return endOfRange(after, size, m.pair, m.edge) })

		// read returns what the ranges hold one after the other.
		read := func() (all []int, sizes []int) {
			for _, r := range ranges {
				same, err := alike(r, m.edge)
				if err != nil {
					t.Fatal(err)
				}
				open[same]++
				in, err := conditions(r, same)
				if err != nil {
					t.Fatal(err)
				}
				found := slices.DeleteFunc(m.find(in), func(at int) bool { return at == 0 && r.After != nil }) // as a cursor does
				exact, err := exactly(r, same)
				if err != nil {
					t.Fatal(err)
				}
				if counted := m.find(exact); !slices.Equal(counted, found) {
					t.Errorf("from %v to %v: counts %v, reads %v", keyName(r.After), keyName(r.Upto), counted, found)
				}
				all, sizes = append(all, found...), append(sizes, len(found))
			}
			return all, sizes
		}
		all, sizes := read()
		if want := m.find(nil); !slices.Equal(all, want) {
			t.Errorf("ranges of %d: read %v, want %v", size, all, want)
		}
		checkSizes(t, sizes, size, records, minKey)

		for at := range values {
			if random.IntN(3) == 0 {
				m.present[at] = !m.present[at]
			}
		}
		all, _ = read()
		if want := m.find(nil); !slices.Equal(all, want) {
			t.Errorf("ranges of %d, after changes: read %v, want %v", size, all, want)
		}
		if t.Failed() {
			t.Fatalf("in round %d, ranges of %d", round, size)
		}
	}
	if open[true] < 5 || open[false] < 5 {
		t.Errorf("ranges by whether their _ids are alike: %v", open)
	}
}

// TestPlainBounds checks that a collection whose _ids have one type is read with plain bounds, which any server finds in an index.
func TestPlainBounds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		others []any  // _ids besides ObjectIDs
		plain  []bool // of the first range, and of the last one
	}{
		"alike":    {plain: []bool{true, true}},
		"a number": {others: []any{int32(5)}, plain: []bool{false, true}},
		"a date":   {others: []any{time.Now()}, plain: []bool{true, false}},
		"both":     {others: []any{int32(5), time.Now()}, plain: []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			for range 10 {
				if _, err := b.users.InsertOne(t.Context(), bson.D{}); err != nil {
					t.Fatal(err)
				}
			}
			for _, id := range test.others {
				if _, err := b.users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}}); err != nil {
					t.Fatal(err)
				}
			}
			ranges := b.split(t, 4)
			for i, r := range []syncrun.Range{ranges[0], ranges[len(ranges)-1]} {
				for what, condition := range map[string]func(syncrun.Range, bool) (bson.A, error){"read": conditions, "count": exactly} {
					in, err := b.store.within(t.Context(), r, condition)
					if err != nil {
						t.Fatal(err)
					}
					if plain := !strings.Contains(fmt.Sprint(in), "$not"); plain != test.plain[i] || len(in) == 0 {
						t.Errorf("%s from %v to %v: %v", what, keyName(r.After), keyName(r.Upto), in)
					}
				}
			}
		})
	}
}

// TestSplit splits collections of mixed _ids into ranges, and reads the ranges. Records come and go meanwhile.
func TestSplit(t *testing.T) {
	t.Parallel()
	everyType := allTypes(t)
	for _, test := range []struct{ records, size int }{
		{0, 3}, {1, 1}, {30, 1}, {36, 9}, {36, 36}, {36, 35}, {36, 100}, {60, 7},
	} {
		t.Run(fmt.Sprintf("%d by %d", test.records, test.size), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 3))
			b := setup(t)
			due := make(map[string]bool) // by key, of all records
			insert := func(id any) {
				doc := bson.D{{Key: "_id", Value: id}}
				stamp := []any{missing{}, nil, "yesterday", at(-freshness), at(48 * time.Hour), at(-time.Minute), at(time.Minute)}[random.IntN(7)]
				if stamp != (missing{}) {
					doc = append(doc, bson.E{Key: lastSynced, Value: stamp})
				}
				switch _, err := b.users.InsertOne(t.Context(), doc); {
				case err == nil:
					due[string(newKey(rawValue(t, id)))] = stamp != at(-time.Minute) && stamp != at(time.Minute)
				case !mongo.IsDuplicateKeyError(err): // 5 and 5.0 are one
					t.Fatal(err)
				}
			}
			if test.records > 0 && random.IntN(2) == 0 {
				insert(nil) // only once: the embedded server would take another one
			}
			for len(due) < test.records {
				insert(randomID(t, random, everyType))
			}
			ranges := b.split(t, test.size)

			check := func(what string) {
				t.Helper()
				var read, whole []syncrun.Record
				for _, r := range ranges {
					records := b.scanRange(t, incremental, r)
					if n, err := b.store.Count(t.Context(), incremental, r); err != nil || n != int64(len(records)) {
						t.Errorf("%s: from %v to %v: counted %d, read %d (%v)", what, keyName(r.After), keyName(r.Upto), n, len(records), err)
					}
					read = append(read, records...)
				}
				whole = b.scan(t, incremental, nil)
				if got, want := keys(read), keys(whole); !slices.Equal(got, want) {
					t.Errorf("%s: read\n     %v\nwant %v", what, got, want)
				}
				seen := make(map[string]int)
				for _, r := range read {
					seen[string(r.Key)]++
				}
				for k, isDue := range due {
					if n := seen[k]; n > 1 || isDue != (n == 1) {
						t.Errorf("%s: %v, due: %v, is in %d ranges", what, key(k), isDue, n)
					}
				}
			}
			check("as it was split")
			var sizes []int
			for _, r := range ranges {
				n, err := b.store.Count(t.Context(), everything, r)
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, int(n))
			}
			_, minKey := due[string(newKey(rawValue(t, bson.MinKey{})))]
			checkSizes(t, sizes, test.size, test.records, minKey)

			for k := range due {
				if random.IntN(3) > 0 {
					continue
				}
				if _, err := b.users.DeleteOne(t.Context(), id("$eq", key(k).value())); err != nil {
					t.Fatal(err)
				}
				delete(due, k)
			}
			for range test.records / 3 {
				insert(randomID(t, random, everyType))
			}
			check("after changes")
		})
	}
}

// TestSplitEndsWithTheCollection checks that no empty range follows a last range that is full.
func TestSplitEndsWithTheCollection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(t,
		bson.D{{Key: "_id", Value: 1}}, bson.D{{Key: "_id", Value: 2}}, bson.D{{Key: "_id", Value: "a"}}, bson.D{{Key: "_id", Value: true}},
	)
	for _, test := range []struct {
		after any
		size  int
		want  string
	}{
		{missing{}, 1, "1"}, {missing{}, 2, "2"}, {missing{}, 3, "a"}, {missing{}, 4, ""}, {missing{}, 5, ""},
		{int32(1), 1, "2"}, {int32(1), 2, "a"}, {int32(1), 3, ""}, {int32(1), 4, ""},
		{int32(2), 1, "a"}, {int32(2), 2, ""}, {"a", 1, ""}, {true, 1, ""}, {bson.DateTime(0), 1, ""},
	} {
		var after []byte
		if test.after != (missing{}) {
			after = newKey(rawValue(t, test.after))
		}
		upto, err := b.store.EndOfRange(t.Context(), after, test.size)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if upto != nil {
			got = key(upto).String()
		}
		if got != test.want {
			t.Errorf("the end of a range of %d behind %v is %q, want %q", test.size, test.after, got, test.want)
		}
	}
}

// commands are the commands that a client sends, by name.
type commands struct {
	mu   sync.Mutex
	sent map[string][]bson.Raw
}

func (c *commands) monitor(o *options.ClientOptions) {
	o.SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sent == nil {
			c.sent = make(map[string][]bson.Raw)
		}
		c.sent[e.CommandName] = append(c.sent[e.CommandName], slices.Clone(e.Command))
	}})
}

// take returns the commands with a name that were sent since the last call.
func (c *commands) take(name string) []bson.Raw {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.sent[name]
	c.sent[name] = nil
	return taken
}

// TestCommandsOfARange checks that a range costs the server no more than it must.
func TestCommandsOfARange(t *testing.T) {
	t.Parallel()
	var sent commands
	b := setupAt(t, serverURI(t), Config{}, sent.monitor)
	for i := range 6 {
		b.insert(t, bson.D{{Key: "_id", Value: bson.ObjectID{11: byte(i)}}})
	}
	ranges := b.split(t, 2)
	if len(ranges) != 3 {
		t.Fatalf("%d ranges, want 3", len(ranges))
	}
	oid := func(i int) string { return fmt.Sprintf(`{"$oid":"%024d"}`, i) }
	field := func(command bson.Raw, path ...string) string {
		doc, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: command.Lookup(path...)}}, false, false)
		if err != nil {
			return err.Error()
		}
		return string(doc[len(`{"v":`) : len(doc)-1])
	}

	found := sent.take("find")
	if len(found) != 4 || field(found[3], "sort") != `{"_id":-1}` || field(found[3], "limit") != "1" { // one for each range, and the last _id
		t.Fatalf("sent %v to split", found)
	}
	for i, want := range []string{`{}`, `{"_id":{"$gt":` + oid(1) + `}}`, `{"_id":{"$gt":` + oid(3) + `}}`} {
		if got := field(found[i], "filter"); got != want {
			t.Errorf("range %d: the filter is %s, want %s", i, got, want)
		}
		for name, want := range map[string]string{
			"sort": `{"_id":1}`, "hint": `{"_id":1}`, "projection": `{"_id":1}`, "skip": "1", "limit": "2",
		} {
			if got := field(found[i], name); got != want {
				t.Errorf("range %d: %s is %s, want %s", i, name, got, want)
			}
		}
	}

	bounds := `{"_id":{"$gt":` + oid(1) + `,"$lte":` + oid(3) + `}}`
	b.scanRange(t, incremental, ranges[1])
	scans := sent.take("find")
	if len(scans) != 1 || field(scans[0], "filter", "$and", "0") != bounds || field(scans[0], "hint") != `{"_id":1}` {
		t.Errorf("sent %v to read the range", scans)
	}
	if n, err := b.store.Count(t.Context(), incremental, ranges[1]); err != nil || n != 2 {
		t.Errorf("counted %d (%v)", n, err)
	}
	counts := sent.take("aggregate")
	if len(counts) != 1 || field(counts[0], "pipeline", "0", "$match", "$and", "0") != bounds || field(counts[0], "hint") != `{"_id":1}` {
		t.Errorf("sent %v to count the range", counts)
	}
	for _, and := range []bson.RawValue{scans[0].Lookup("filter", "$and"), counts[0].Lookup("pipeline", "0", "$match", "$and")} {
		if list, err := and.Array().Values(); err != nil || len(list) != 2 {
			t.Errorf("more than the bounds and the selection: %v (%v)", and, err)
		}
	}
}

func TestForeignKeysAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	foreign := []byte("not a key")
	for _, r := range []syncrun.Range{{After: foreign}, {Upto: foreign}, {After: newKey(rawValue(t, 1)), Upto: foreign}, {After: []byte{}}} {
		if _, err := b.store.Scan(t.Context(), incremental, r); err == nil {
			t.Errorf("reads %v", r)
		}
		if _, err := b.store.Count(t.Context(), incremental, r); err == nil {
			t.Errorf("counts %v", r)
		}
	}
	if _, err := b.store.EndOfRange(t.Context(), foreign, 1); err == nil {
		t.Error("takes any bytes as a key")
	}
}
