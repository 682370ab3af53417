package mongodb

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// These tests check filters on _id against the documented meaning of the operators, because the server of a test may not take
// values of every type.

// orderedValues returns _ids of all types in the server's order, several of each bracket.
func orderedValues(t *testing.T) []bson.RawValue {
	t.Helper()
	ids := []any{bson.MinKey{}, nil, math.NaN(), math.Inf(-1), -1e300}
	for n := int32(-40); n < 40; n += 10 {
		ids = append(ids, n, float64(n)+0.5, int64(n)+1, decimal(t, fmt.Sprint(n+2)))
	}
	ids = append(ids, int64(1)<<60, decimal(t, "1E+30"), 1e300, math.Inf(1))
	ids = append(ids, "", bson.Symbol("a"), "aa", bson.Symbol("ab"), "b", "c", bson.Symbol("d"), "é")
	ids = append(ids, bson.D{})
	for i := range int32(6) {
		ids = append(ids, bson.D{{Key: "a", Value: i}})
	}
	ids = append(ids, bson.D{{Key: "b", Value: int32(0)}})
	ids = append(ids,
		bson.Binary{}, bson.Binary{Subtype: 4}, bson.Binary{Data: []byte{0}}, bson.Binary{Data: []byte{9}},
		bson.Binary{Subtype: 4, Data: []byte{1}}, bson.Binary{Data: []byte{0, 0}})
	for i := range byte(12) {
		ids = append(ids, bson.ObjectID{11: i})
	}
	ids = append(ids,
		false, true, bson.DateTime(math.MinInt64), bson.DateTime(-1), bson.DateTime(5), bson.DateTime(6),
		bson.Timestamp{}, bson.Timestamp{I: 1}, bson.Timestamp{T: 1},
		bson.DBPointer{DB: "a", Pointer: bson.ObjectID{}}, bson.DBPointer{DB: "a", Pointer: bson.ObjectID{11: 1}},
		bson.JavaScript("x"), bson.JavaScript("y"), bson.CodeWithScope{Code: "x", Scope: bson.D{}}, bson.CodeWithScope{Code: "y", Scope: bson.D{}},
		bson.MaxKey{})
	values := make([]bson.RawValue, len(ids))
	for i, id := range ids {
		values[i] = rawValue(t, id)
	}
	return values
}

// isRare reports whether some servers do not know the value's type.
func isRare(v bson.RawValue) bool {
	switch v.Type {
	case bson.TypeDecimal128, bson.TypeMinKey, bson.TypeMaxKey, bson.TypeSymbol, bson.TypeDBPointer, bson.TypeJavaScript, bson.TypeCodeWithScope:
		return true
	}
	f, ok := v.DoubleOK()
	return ok && (math.IsNaN(f) || math.IsInf(f, 0))
}

// rareTypes are the codes of the types for which isRare returns true.
var rareTypes = []int32{19, -1, 127, 14, 12, 13, 15}

// matcher evaluates MongoDB's operators for _ids that are given in their order. Operands must be among them.
type matcher struct {
	t      *testing.T
	values []bson.RawValue
	places map[string]int
	// plain makes it fail where a server that knows no rare types would refuse: when it compares with such a value, and
	// when it has to tell whether an _id is of such a type, which it does no further than it must.
	plain bool
}

func newMatcher(t *testing.T, values []bson.RawValue) matcher {
	t.Helper()
	m := matcher{t: t, values: values, places: make(map[string]int)}
	for i, v := range values {
		m.places[string(newKey(v))] = i
	}
	return m
}

// matches reports whether a filter selects the value at the index.
func (m matcher) matches(at int, filter bson.D) bool {
	return !slices.ContainsFunc(filter, func(e bson.E) bool { return !m.matchesElement(at, e) })
}

func (m matcher) matchesElement(at int, e bson.E) bool {
	switch e.Key {
	case "$and":
		return m.all(at, e.Value.(bson.A))
	case "$or":
		return slices.ContainsFunc(e.Value.(bson.A), func(branch any) bool { return m.matches(at, branch.(bson.D)) })
	case "_id":
		return m.operators(at, e.Value.(bson.D))
	}
	m.t.Fatalf("a condition on %s", e.Key)
	return false
}

// all reports whether all conditions select the value.
func (m matcher) all(at int, conditions bson.A) bool {
	return !slices.ContainsFunc(conditions, func(c any) bool { return !m.matches(at, c.(bson.D)) })
}

func (m matcher) operators(at int, list bson.D) bool {
	return !slices.ContainsFunc(list, func(e bson.E) bool { return !m.operator(at, e) })
}

func (m matcher) operator(at int, e bson.E) bool {
	v := m.values[at]
	switch e.Key {
	case "$exists":
		return e.Value.(bool)
	case "$not":
		return !m.operators(at, e.Value.(bson.D))
	case "$type":
		types, ok := e.Value.(bson.A)
		if !ok {
			types = bson.A{e.Value}
		}
		return slices.ContainsFunc(types, func(name any) bool { return m.isOf(v, name) })
	}
	operand := rawValue(m.t, e.Value)
	if m.plain && isRare(operand) {
		m.t.Fatalf("compares with %v", operand)
	}
	with, ok := m.places[string(newKey(operand))]
	if !ok {
		m.t.Fatalf("%v is not among the values", operand)
	}
	switch {
	case v.Type != operand.Type && operand.Type == bson.TypeMinKey: // everything is greater
		return e.Key == "$gt" || e.Key == "$gte"
	case v.Type != operand.Type && operand.Type == bson.TypeMaxKey:
		return e.Key == "$lte"
	case bracketOf(v.Type) != bracketOf(operand.Type):
		return false
	case v.Type != operand.Type && bracketOf(v.Type) < 0: // MinKey and MaxKey share no bracket
		return false
	case isNaN(v) || isNaN(operand):
		return e.Key != "$gt" && isNaN(v) && isNaN(operand)
	}
	switch e.Key {
	case "$gt":
		return at > with
	case "$gte":
		return at >= with
	case "$lte":
		return at <= with
	}
	m.t.Fatalf("operator %s", e.Key)
	return false
}

// isOf reports whether a value has a type, by its code or by one of the names that all servers know.
func (m matcher) isOf(v bson.RawValue, name any) bool {
	switch name := name.(type) {
	case int32:
		if m.plain && slices.Contains(rareTypes, name) {
			m.t.Fatalf("asks whether %v is of type %d", v, name)
		}
		return name == int32(int8(v.Type))
	case string:
		types, ok := map[string][]bson.Type{
			"null": {bson.TypeNull}, "number": {bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128},
			"string": {bson.TypeString}, "object": {bson.TypeEmbeddedDocument}, "binData": {bson.TypeBinary},
			"objectId": {bson.TypeObjectID}, "bool": {bson.TypeBoolean}, "date": {bson.TypeDateTime}, "timestamp": {bson.TypeTimestamp},
		}[name]
		if !ok {
			m.t.Fatalf("type %q", name)
		}
		return slices.Contains(types, v.Type)
	}
	m.t.Fatalf("type %v", name)
	return false
}

// model is a collection in memory: the values of a matcher that are present.
type model struct {
	matcher
	present []bool
}

// edge does what Store.edge does.
func (m model) edge(last bool) (key, error) {
	at := slices.Index(m.present, true)
	if last {
		for at = len(m.present) - 1; at >= 0 && !m.present[at]; at-- {
		}
	}
	if at < 0 {
		return nil, nil
	}
	return newKey(m.values[at]), nil
}

// pair does what Store.keys does for endOfRange.
func (m model) pair(filter bson.D, skip int) ([]key, error) {
	var found []key
	for at := range m.values {
		if !m.present[at] || !m.matches(at, filter) {
			continue
		}
		if skip--; skip < 0 {
			found = append(found, newKey(m.values[at]))
		}
		if len(found) == 2 {
			break
		}
	}
	return found, nil
}

// find returns the indexes of the values that are present and that all conditions select.
func (m model) find(conditions bson.A) []int {
	var found []int
	for at := range m.values {
		if m.present[at] && m.all(at, conditions) {
			found = append(found, at)
		}
	}
	return found
}
