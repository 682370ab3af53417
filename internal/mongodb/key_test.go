package mongodb

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func rawValue(t *testing.T, v any) bson.RawValue {
	t.Helper()
	if v == nil {
		return bson.RawValue{Type: bson.TypeNull}
	}
	kind, value, err := bson.MarshalValue(v)
	if err != nil {
		t.Fatal(err)
	}
	return bson.RawValue{Type: kind, Value: value}
}

func decimal(t *testing.T, s string) bson.Decimal128 {
	t.Helper()
	d, err := bson.ParseDecimal128(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAfterFilter(t *testing.T) {
	t.Parallel()
	notLTE := func(v string) string { return `{"_id":{"$not":{"$lte":` + v + `}}}` }
	number := func(v string) []string {
		return []string{
			notLTE(v), `{"$or":[{"_id":{"$gt":` + v + `}},{"_id":{"$not":{"$type":"number"}}}]}`, `{"_id":{"$not":{"$type":10}}}`,
		}
	}
	// Of each bracket, what leaves it out.
	leftOut := []string{
		`{"_id":{"$not":{"$type":10}}}`, `{"_id":{"$not":{"$type":"number"}}}`, `{"_id":{"$not":{"$gte":""}}}`,
		`{"_id":{"$not":{"$type":3}}}`, `{"_id":{"$not":{"$type":5}}}`, `{"_id":{"$not":{"$type":7}}}`,
		`{"_id":{"$not":{"$type":8}}}`, `{"_id":{"$not":{"$type":9}}}`, `{"_id":{"$not":{"$type":17}}}`, `{"_id":{"$not":{"$type":12}}}`,
	}
	behind := func(v string, brackets int) []string { return append([]string{notLTE(v)}, leftOut[:brackets]...) }
	oid := bson.NewObjectID()
	for _, test := range []struct {
		id   any
		want []string
	}{
		{bson.MinKey{}, nil},
		{nil, behind("null", 0)},
		{math.NaN(), behind(`{"$numberDouble":"NaN"}`, 1)},
		{decimal(t, "NaN"), behind(`{"$numberDecimal":"NaN"}`, 1)},
		{int32(-7), number("-7")},
		{int64(1) << 60, number("1152921504606846976")},
		{-2.5, number("-2.5")},
		{math.Inf(-1), number(`{"$numberDouble":"-Infinity"}`)},
		{decimal(t, "1.5"), number(`{"$numberDecimal":"1.5"}`)},
		{"a", behind(`"a"`, 2)},
		{bson.Symbol("a"), behind(`{"$symbol":"a"}`, 2)},
		{bson.D{{Key: "a", Value: "b"}}, behind(`{"a":"b"}`, 3)},
		{bson.Binary{Data: []byte{1}}, behind(`{"$binary":{"base64":"AQ==","subType":"00"}}`, 4)},
		{oid, behind(`{"$oid":"`+oid.Hex()+`"}`, 5)},
		{true, behind("true", 6)},
		{bson.DateTime(0), behind(`{"$date":"1970-01-01T00:00:00Z"}`, 7)},
		{bson.Timestamp{T: 1, I: 2}, behind(`{"$timestamp":{"t":1,"i":2}}`, 8)},
		{bson.JavaScript("x"), behind(`{"$code":"x"}`, 10)},
		{bson.MaxKey{}, []string{`{"_id":{"$exists":false}}`}},
	} {
		if got := extJSON(t, newKey(rawValue(t, test.id)).after()); !slices.Equal(got, test.want) {
			t.Errorf("after %T %v:\n got %v\nwant %v", test.id, test.id, got, test.want)
		}
	}
}

func TestUptoFilter(t *testing.T) {
	t.Parallel()
	notOf := func(codes string) string {
		return `{"$or":[{"_id":{"$type":["null","number","string","object","binData","objectId","bool","date","timestamp"]}},` +
			`{"_id":{"$not":{"$type":[` + codes + `]}}}]}`
	}
	// Of each bracket behind null, what leaves it out; the last one is for several.
	leftOut := []string{
		`{"_id":{"$not":{"$type":"number"}}}`, `{"_id":{"$not":{"$gte":""}}}`, `{"_id":{"$not":{"$type":3}}}`,
		`{"_id":{"$not":{"$gte":{"$binary":{"base64":"","subType":"00"}}}}}`, `{"_id":{"$not":{"$gte":{"$oid":"000000000000000000000000"}}}}`,
		`{"_id":{"$not":{"$type":8}}}`, `{"_id":{"$not":{"$type":9}}}`, `{"_id":{"$not":{"$type":17}}}`, notOf("12,13,15,127"),
	}
	upto := func(v string, bracket int) []string {
		return append([]string{`{"_id":{"$not":{"$gt":` + v + `}}}`}, leftOut[bracket:]...)
	}
	oid := bson.NewObjectID()
	for _, test := range []struct {
		id   any
		want []string
	}{
		{bson.MinKey{}, []string{`{"_id":{"$lte":{"$minKey":1}}}`}},
		{nil, upto("null", 0)},
		{math.NaN(), append([]string{`{"_id":{"$not":{"$gte":{"$numberDouble":"-Infinity"}}}}`}, leftOut[1:]...)},
		{decimal(t, "NaN"), append([]string{`{"_id":{"$not":{"$gte":{"$numberDouble":"-Infinity"}}}}`}, leftOut[1:]...)},
		{int32(-7), upto("-7", 1)},
		{math.Inf(1), upto(`{"$numberDouble":"Infinity"}`, 1)},
		{decimal(t, "1.5"), upto(`{"$numberDecimal":"1.5"}`, 1)},
		{"a", upto(`"a"`, 2)},
		{bson.Symbol("a"), upto(`{"$symbol":"a"}`, 2)},
		{bson.D{{Key: "a", Value: "b"}}, upto(`{"a":"b"}`, 3)},
		{bson.Binary{Data: []byte{1}}, upto(`{"$binary":{"base64":"AQ==","subType":"00"}}`, 4)},
		{oid, upto(`{"$oid":"`+oid.Hex()+`"}`, 5)},
		{true, upto("true", 6)},
		{bson.DateTime(0), upto(`{"$date":"1970-01-01T00:00:00Z"}`, 7)},
		{bson.Timestamp{T: 1, I: 2}, upto(`{"$timestamp":{"t":1,"i":2}}`, 8)},
		{bson.JavaScript("x"), []string{`{"_id":{"$not":{"$gt":{"$code":"x"}}}}`, notOf("15,127")}},
		{bson.MaxKey{}, nil},
	} {
		if got := extJSON(t, newKey(rawValue(t, test.id)).upto()); !slices.Equal(got, test.want) {
			t.Errorf("upto %T %v:\n got %v\nwant %v", test.id, test.id, got, test.want)
		}
	}
}

func extJSON(t *testing.T, conditions bson.A) []string {
	t.Helper()
	var list []string
	for _, condition := range conditions {
		doc, err := bson.MarshalExtJSON(condition, false, false)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(doc))
	}
	return list
}

func TestKeyIsACopy(t *testing.T) {
	t.Parallel()
	v := rawValue(t, "some string")
	k := newKey(v)
	before := bytes.Clone(k)
	clear(v.Value)
	if !bytes.Equal(k, before) {
		t.Error("the key changed with the buffer that it came from")
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	k := newKey(rawValue(t, bson.NewObjectID()))
	if _, err := parseKey(k); err != nil {
		t.Error(err)
	}
	for _, broken := range [][]byte{nil, {}, {byte(bson.TypeObjectID)}, k[:5], {byte(bson.TypeString), 9, 0, 0, 0, 'a'}} {
		if _, err := parseKey(broken); err == nil {
			t.Errorf("took %x for a key", broken)
		}
	}
}

func TestKeyString(t *testing.T) {
	t.Parallel()
	oid := bson.NewObjectID()
	for _, test := range []struct {
		id   any
		want string
	}{
		{oid, oid.Hex()},
		{"legacy-3", "legacy-3"},
		{int32(100021), "100021"},
		{int64(1000000000348), "1000000000348"},
		{2.5, "2.5"},
		{nil, "null"},
		{true, "true"},
		{bson.D{{Key: "org", Value: 1}, {Key: "n", Value: "}"}}, `{"org":1,"n":"}"}`},
		{bson.Binary{Subtype: 4, Data: make([]byte, 16)}, `{"$binary":{"base64":"AAAAAAAAAAAAAAAAAAAAAA==","subType":"04"}}`},
	} {
		if got := newKey(rawValue(t, test.id)).String(); got != test.want {
			t.Errorf("%v prints as %q, want %q", test.id, got, test.want)
		}
	}
}

// randomID returns an _id of a random type.
func randomID(t *testing.T, random *rand.Rand, everyType bool) any {
	kinds := 10
	if everyType {
		kinds = 17
	}
	b := make([]byte, random.IntN(20))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	switch random.IntN(kinds) {
	case 0:
		return bson.ObjectID{byte(random.IntN(3)), 11: byte(random.IntN(256))}
	case 1:
		return fmt.Sprintf("%c%d", rune('a'+random.IntN(3)), random.IntN(50))
	case 2:
		return int32(random.IntN(2000) - 1000)
	case 3:
		return (random.Int64N(2000) - 1000) << 30
	case 4:
		return float64(random.IntN(2000)-1000) + 0.5
	case 5:
		return bson.Binary{Subtype: byte(random.IntN(2) * 4), Data: b}
	case 6:
		return random.IntN(2) == 0
	case 7:
		return bson.DateTime(random.Int64N(1 << 41))
	case 8:
		return bson.D{{Key: string(rune('a' + random.IntN(2))), Value: int32(random.IntN(5))}, {Key: "n", Value: fmt.Sprint(random.IntN(5))}}
	case 9:
		return bson.Timestamp{T: random.Uint32N(1 << 30), I: random.Uint32N(3)}
	case 10:
		return decimal(t, fmt.Sprintf("%d.25", random.IntN(2000)-1000))
	case 11:
		return bson.MinKey{}
	case 12:
		return bson.MaxKey{}
	case 13:
		return math.NaN()
	case 14:
		return math.Inf(random.IntN(2)*2 - 1)
	case 15:
		return bson.Symbol(fmt.Sprintf("s%d", random.IntN(50)))
	default:
		return bson.JavaScript(fmt.Sprintf("f%d", random.IntN(50)))
	}
}

// TestScanFromEveryKey reads collections of mixed _ids, beginning behind each of them.
func TestScanFromEveryKey(t *testing.T) {
	t.Parallel()
	everyType := allTypes(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 1))
			b := setup(t)
			inserted := 0
			for i := range 80 {
				id := randomID(t, random, everyType)
				if i == 0 {
					id = nil // only once: the embedded server would take another one
				}
				_, err := b.users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}})
				if mongo.IsDuplicateKeyError(err) {
					continue // 5 and 5.0 are one, and so are two nulls
				}
				if err != nil {
					t.Fatal(err)
				}
				inserted++
			}
			whole := b.scan(t, incremental, nil)
			if len(whole) != inserted {
				t.Fatalf("read %d of %d records", len(whole), inserted)
			}
			for i, record := range whole {
				if i > 0 && bracketOf(key(record.Key).value().Type) < bracketOf(key(whole[i-1].Key).value().Type) && key(record.Key).value().Type != bson.TypeMaxKey {
					t.Errorf("%v comes behind %v", record.ID, whole[i-1].ID)
				}
				if got, want := keys(b.scan(t, incremental, record.Key)), keys(whole[i+1:]); !slices.Equal(got, want) {
					t.Errorf("behind %v (%v):\n got %v\nwant %v", record.ID, key(record.Key).value().Type, got, want)
				}
			}
		})
	}
}

// TestScanFetchesMoreThanOnce checks that keys survive the next fetch, and that no record is lost between two.
func TestScanFetchesMoreThanOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	docs := make([]bson.D, 2*fetchSize+500)
	for i := range docs {
		docs[i] = bson.D{{Key: "_id", Value: fmt.Sprintf("%06d", i)}, {Key: "username", Value: fmt.Sprintf("user%06d", i)}}
	}
	b.insert(t, docs...)
	records := b.scan(t, incremental, nil)
	if len(records) != len(docs) {
		t.Fatalf("read %d of %d records", len(records), len(docs))
	}
	for i, record := range records {
		if record.ID.String() != fmt.Sprintf("%06d", i) || record.Name != fmt.Sprintf("user%06d", i) {
			t.Fatalf("record %d is %v %q", i, record.ID, record.Name)
		}
	}
}

func keys(records []syncrun.Record) []string {
	var ids []string
	for _, r := range records {
		ids = append(ids, fmt.Sprintf("%v %v", key(r.Key).value().Type, r.ID))
	}
	return ids
}
