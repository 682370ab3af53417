// Filters, and the order of values.

package measuring

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The brackets that values are compared in.
const (
	numbers = 2
	strs    = 3
	dates   = 9
)

// bracket returns the place of a type in MongoDB's order of types. Values of one bracket can be compared.
func bracket(t bson.Type) int {
	switch t {
	case bson.TypeMinKey:
		return -1
	case bson.TypeUndefined:
		return 0
	case bson.TypeNull, bson.Type(0):
		return 1
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128:
		return numbers
	case bson.TypeString, bson.TypeSymbol:
		return strs
	case bson.TypeEmbeddedDocument:
		return 4
	case bson.TypeArray:
		return 5
	case bson.TypeBinary:
		return 6
	case bson.TypeObjectID:
		return 7
	case bson.TypeBoolean:
		return 8
	case bson.TypeDateTime:
		return dates
	case bson.TypeTimestamp:
		return 10
	case bson.TypeRegex:
		return 11
	case bson.TypeDBPointer:
		return 12
	case bson.TypeJavaScript:
		return 13
	case bson.TypeCodeWithScope:
		return 14
	}
	return 15
}

// number returns a number as a double, which is exact for what is measured.
func number(v bson.RawValue) float64 {
	switch v.Type {
	case bson.TypeInt32:
		return float64(v.Int32())
	case bson.TypeInt64:
		return float64(v.Int64())
	case bson.TypeDecimal128:
		f, _ := strconv.ParseFloat(v.Decimal128().String(), 64)
		return f
	}
	return v.Double()
}

// compare returns the order of two values.
func compare(a, b bson.RawValue) int {
	if x, y := bracket(a.Type), bracket(b.Type); x != y {
		return x - y
	}
	switch bracket(a.Type) {
	case numbers:
		return cmp.Compare(number(a), number(b)) // NaN comes first
	case strs:
		return strings.Compare(text(a), text(b))
	case dates:
		return cmp.Compare(a.DateTime(), b.DateTime())
	}
	return bytes.Compare(a.Value, b.Value)
}

func text(v bson.RawValue) string {
	if symbol, ok := v.SymbolOK(); ok {
		return symbol
	}
	return v.StringValue()
}

// typeNames are the names of the types that the syncs ask for.
var typeNames = map[string]bson.Type{
	"date": bson.TypeDateTime, "array": bson.TypeArray, "objectId": bson.TypeObjectID, "string": bson.TypeString, "null": bson.TypeNull,
	"minKey": bson.TypeMinKey, "maxKey": bson.TypeMaxKey, "int": bson.TypeInt32, "long": bson.TypeInt64, "double": bson.TypeDouble,
	"object": bson.TypeEmbeddedDocument, "bool": bson.TypeBoolean, "binData": bson.TypeBinary, "timestamp": bson.TypeTimestamp,
	"regex": bson.TypeRegex, "dbPointer": bson.TypeDBPointer, "javascript": bson.TypeJavaScript, "symbol": bson.TypeSymbol,
	"javascriptWithScope": bson.TypeCodeWithScope, "undefined": bson.TypeUndefined, "decimal": bson.TypeDecimal128,
}

// predicate reports whether a filter selects a document.
type predicate func(document bson.Raw) bool

// parseFilter returns the predicate of a filter, or an error for one that it does not know.
func parseFilter(filter bson.Raw) (predicate, error) {
	if filter == nil {
		return func(bson.Raw) bool { return true }, nil
	}
	return allOf(filter, parseCondition)
}

// allOf returns what reports whether all tests succeed that parse makes of the elements of a document.
func allOf[T any, Test ~func(T) bool](document bson.Raw, parse func(name string, v bson.RawValue) (Test, error)) (Test, error) {
	elements, err := document.Elements()
	if err != nil {
		return nil, err
	}
	var all []Test
	for _, e := range elements {
		test, err := parse(e.Key(), e.Value())
		if err != nil {
			return nil, err
		}
		all = append(all, test)
	}
	return func(of T) bool { return !slices.ContainsFunc(all, func(test Test) bool { return !test(of) }) }, nil
}

func parseCondition(name string, v bson.RawValue) (predicate, error) {
	switch name {
	case "$and", "$or", "$nor":
		values, err := v.Array().Values()
		if err != nil {
			return nil, err
		}
		var list []predicate
		for _, each := range values {
			p, err := parseFilter(each.Document())
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		return func(d bson.Raw) bool {
			for _, p := range list {
				if p(d) != (name == "$and") {
					return name == "$or"
				}
			}
			return name != "$or"
		}, nil
	}
	if strings.HasPrefix(name, "$") {
		return nil, fmt.Errorf("the operator %s is not known", name)
	}
	test, err := parseTest(v)
	if err != nil {
		return nil, err
	}
	return func(d bson.Raw) bool { return test(d.Lookup(name)) }, nil
}

// parseTest returns the test of a field's value, which has the type 0 if the field is missing.
func parseTest(v bson.RawValue) (func(bson.RawValue) bool, error) {
	if pattern, options, ok := v.RegexOK(); ok {
		expression, err := regexp.Compile(pattern)
		if err != nil || options != "" {
			return nil, fmt.Errorf("the expression %s is not known: %w", v, err)
		}
		return func(x bson.RawValue) bool {
			elements := []bson.RawValue{x}
			if list, ok := x.ArrayOK(); ok {
				elements, _ = list.Values()
			}
			return slices.ContainsFunc(elements, func(e bson.RawValue) bool {
				text, ok := e.StringValueOK()
				return ok && expression.MatchString(text)
			})
		}, nil
	}
	if v.Type != bson.TypeEmbeddedDocument {
		return parseOperator("$eq", v)
	}
	return allOf(v.Document(), parseOperator)
}

func parseOperator(name string, v bson.RawValue) (func(bson.RawValue) bool, error) {
	ordered := func(ok func(int) bool) func(bson.RawValue) bool {
		return func(x bson.RawValue) bool {
			if x.Type == 0 { // only null is equal to what is missing
				return v.Type == bson.TypeNull && ok(0)
			}
			return bracket(x.Type) == bracket(v.Type) && ok(compare(x, v))
		}
	}
	switch name {
	case "$eq":
		return ordered(func(n int) bool { return n == 0 }), nil
	case "$gt":
		return ordered(func(n int) bool { return n > 0 }), nil
	case "$gte":
		return ordered(func(n int) bool { return n >= 0 }), nil
	case "$lt":
		return ordered(func(n int) bool { return n < 0 }), nil
	case "$lte":
		return ordered(func(n int) bool { return n <= 0 }), nil
	case "$ne":
		equals := ordered(func(n int) bool { return n == 0 })
		return func(x bson.RawValue) bool { return !equals(x) }, nil
	case "$in":
		values, err := v.Array().Values()
		if err != nil {
			return nil, err
		}
		return parseIn(values)
	case "$not":
		test, err := parseTest(v)
		if err != nil {
			return nil, err
		}
		return func(x bson.RawValue) bool { return !test(x) }, nil
	case "$exists":
		wanted, _ := v.BooleanOK()
		return func(x bson.RawValue) bool { return (x.Type != 0) == wanted }, nil
	case "$type":
		types, err := typesOf(v)
		if err != nil {
			return nil, err
		}
		return func(x bson.RawValue) bool {
			for _, t := range types {
				if x.Type == t {
					return true
				}
			}
			return false
		}, nil
	}
	return nil, fmt.Errorf("the operator %s is not known", name)
}

// parseIn returns the test for values in a list, which can be long.
func parseIn(values []bson.RawValue) (func(bson.RawValue) bool, error) {
	same := make(map[string]bool) // values that are equal byte by byte
	var others []func(bson.RawValue) bool
	for _, each := range values {
		if each.Type == bson.TypeObjectID || each.Type == bson.TypeString {
			same[string(append([]byte{byte(each.Type)}, each.Value...))] = true
			continue
		}
		equals, err := parseOperator("$eq", each)
		if each.Type == bson.TypeRegex {
			equals, err = parseTest(each)
		}
		if err != nil {
			return nil, err
		}
		others = append(others, equals)
	}
	return func(x bson.RawValue) bool {
		return same[string(append([]byte{byte(x.Type)}, x.Value...))] ||
			slices.ContainsFunc(others, func(test func(bson.RawValue) bool) bool { return test(x) })
	}, nil
}

// typesOf returns the types that $type names.
func typesOf(v bson.RawValue) ([]bson.Type, error) {
	values := []bson.RawValue{v}
	if v.Type == bson.TypeArray {
		values, _ = v.Array().Values()
	}
	var types []bson.Type
	for _, each := range values {
		name, ok := each.StringValueOK()
		if !ok {
			types = append(types, bson.Type(int8(number(each))))
			continue
		}
		if name == "number" {
			types = append(types, bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128)
			continue
		}
		t, known := typeNames[name]
		if !known {
			return nil, fmt.Errorf("the type %q is not known", name)
		}
		types = append(types, t)
	}
	return types, nil
}

// listOf returns the values of a condition that an _id is in a list.
func listOf(filter bson.Raw) ([]bson.RawValue, bool) {
	elements, _ := filter.Elements()
	for _, e := range elements {
		switch e.Key() {
		case "$and":
			values, _ := e.Value().Array().Values()
			for _, each := range values {
				if list, ok := listOf(each.Document()); ok {
					return list, true
				}
			}
		case "_id":
			condition, _ := e.Value().DocumentOK()
			if list, ok := condition.Lookup("$in").ArrayOK(); ok {
				values, err := list.Values()
				return values, err == nil
			}
		}
	}
	return nil, false
}

// bounds returns the range of _ids outside of which the filter selects nothing, as an index would. Nil values are no bound.
func bounds(filter bson.Raw) (after, upto *bson.RawValue) {
	elements, err := filter.Elements()
	if err != nil {
		return nil, nil
	}
	for _, e := range elements {
		switch v := e.Value(); e.Key() {
		case "$and":
			values, _ := v.Array().Values()
			for _, each := range values {
				a, u := bounds(each.Document())
				after, upto = tighter(after, a, 1), tighter(upto, u, -1)
			}
		case "_id":
			if v.Type != bson.TypeEmbeddedDocument {
				return &v, &v
			}
			operators, _ := v.Document().Elements()
			for _, o := range operators {
				bound := o.Value()
				switch o.Key() {
				case "$gt", "$gte":
					after = tighter(after, &bound, 1)
				case "$lt", "$lte":
					upto = tighter(upto, &bound, -1)
				case "$eq":
					return &bound, &bound
				}
			}
		}
	}
	return after, upto
}

// tighter returns the larger of two bounds, or the smaller one with direction -1.
func tighter(a, b *bson.RawValue, direction int) *bson.RawValue {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case compare(*a, *b)*direction >= 0:
		return a
	}
	return b
}
