// Filters, and the order of values.

package mongod

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// bracket returns the place of a type in MongoDB's order of types. Values of one bracket can be compared.
func bracket(t bson.Type) int {
	switch t {
	case bson.TypeNull, bson.Type(0):
		return 1
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble:
		return 2
	case bson.TypeString, bson.TypeSymbol:
		return 3
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
		return 9
	case bson.TypeTimestamp:
		return 10
	}
	return 11
}

// number returns a number as a double, which is exact for what is measured.
func number(v bson.RawValue) float64 {
	switch v.Type {
	case bson.TypeInt32:
		return float64(v.Int32())
	case bson.TypeInt64:
		return float64(v.Int64())
	}
	return v.Double()
}

// compare returns the order of two values.
func compare(a, b bson.RawValue) int {
	if x, y := bracket(a.Type), bracket(b.Type); x != y {
		return x - y
	}
	switch bracket(a.Type) {
	case 2:
		switch x, y := number(a), number(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	case 3:
		return strings.Compare(a.StringValue(), b.StringValue())
	case 9:
		switch x, y := a.DateTime(), b.DateTime(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return bytes.Compare(a.Value, b.Value)
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
	elements, err := filter.Elements()
	if err != nil {
		return nil, err
	}
	var all []predicate
	for _, e := range elements {
		p, err := parseCondition(e.Key(), e.Value())
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return func(d bson.Raw) bool {
		for _, p := range all {
			if !p(d) {
				return false
			}
		}
		return true
	}, nil
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
			text, ok := x.StringValueOK()
			return ok && expression.MatchString(text)
		}, nil
	}
	if v.Type != bson.TypeEmbeddedDocument {
		return func(x bson.RawValue) bool {
			return x.Type != 0 && bracket(x.Type) == bracket(v.Type) && compare(x, v) == 0
		}, nil
	}
	elements, err := v.Document().Elements()
	if err != nil {
		return nil, err
	}
	var all []func(bson.RawValue) bool
	for _, e := range elements {
		test, err := parseOperator(e.Key(), e.Value())
		if err != nil {
			return nil, err
		}
		all = append(all, test)
	}
	return func(x bson.RawValue) bool {
		for _, test := range all {
			if !test(x) {
				return false
			}
		}
		return true
	}, nil
}

func parseOperator(name string, v bson.RawValue) (func(bson.RawValue) bool, error) {
	ordered := func(ok func(int) bool) func(bson.RawValue) bool {
		return func(x bson.RawValue) bool {
			return x.Type != 0 && bracket(x.Type) == bracket(v.Type) && ok(compare(x, v))
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
		var all []func(bson.RawValue) bool
		for _, each := range values {
			test, err := parseTest(each)
			if err != nil {
				return nil, err
			}
			all = append(all, test)
		}
		return func(x bson.RawValue) bool {
			return slices.ContainsFunc(all, func(test func(bson.RawValue) bool) bool { return test(x) })
		}, nil
	case "$not":
		test, err := parseTest(v)
		if err != nil {
			return nil, err
		}
		return func(x bson.RawValue) bool { return !test(x) }, nil
	case "$type":
		var types []bson.Type
		values := []bson.RawValue{v}
		if v.Type == bson.TypeArray {
			values, _ = v.Array().Values()
		}
		for _, each := range values {
			if text, ok := each.StringValueOK(); ok {
				if text == "number" {
					types = append(types, bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128)
					continue
				}
				t, known := typeNames[text]
				if !known {
					return nil, fmt.Errorf("the type %q is not known", text)
				}
				types = append(types, t)
				continue
			}
			types = append(types, bson.Type(int8(number(each))))
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
