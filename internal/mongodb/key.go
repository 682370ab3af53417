package mongodb

import (
	"bytes"
	"encoding/hex"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// key is an _id as a position in the collection: the byte of its BSON type, and its value as the server sent it.
// Collections that grew over years hold _ids of several types, so a position is one in the order over all types.
type key []byte

// newKey copies: v aliases the buffer of a whole batch.
func newKey(v bson.RawValue) key {
	k := make(key, 0, 1+len(v.Value))
	return append(append(k, byte(v.Type)), v.Value...)
}

// parseKey returns false for bytes that newKey did not make.
func parseKey(b []byte) (key, bool) {
	return key(b), len(b) > 0 && key(b).value().Validate() == nil
}

func (k key) value() bson.RawValue { return bson.RawValue{Type: bson.Type(k[0]), Value: k[1:]} }

// String returns the _id for people to read: ObjectIDs as hexadecimal digits, strings as they are, and all others as
// Extended JSON.
func (k key) String() string {
	v := k.value()
	switch v.Type {
	case bson.TypeObjectID:
		return hex.EncodeToString(v.Value)
	case bson.TypeString:
		return v.StringValue()
	}
	doc, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, false, false)
	if err != nil {
		return v.String()
	}
	return string(bytes.TrimSuffix(bytes.TrimPrefix(doc, []byte(`{"v":`)), []byte("}")))
}

// brackets are the BSON types of an _id in the server's order; types of one bracket compare with one another. Arrays,
// regular expressions and undefined cannot be an _id. MinKey and MaxKey are missing as they compare with everything.
var brackets = [][]bson.Type{
	{bson.TypeNull},
	{bson.TypeInt32, bson.TypeInt64, bson.TypeDouble, bson.TypeDecimal128},
	{bson.TypeString, bson.TypeSymbol},
	{bson.TypeEmbeddedDocument},
	{bson.TypeBinary},
	{bson.TypeObjectID},
	{bson.TypeBoolean},
	{bson.TypeDateTime},
	{bson.TypeTimestamp},
	{bson.TypeDBPointer},
	{bson.TypeJavaScript},
	{bson.TypeCodeWithScope},
}

// after returns the conditions that select the _ids behind k in the order of all types. The comparison operators stay
// within their operand's bracket, so what is selected is what is neither in an earlier bracket nor, within k's own, at
// or before k. Leaving out what lies before, rather than naming what comes after, lets the server seek to k in the
// index.
//
// MinKey is not left out as not every server can be told of it; it is for the reader to pass over.
func (k key) after() bson.A {
	v := k.value()
	switch v.Type {
	case bson.TypeMinKey:
		return nil
	case bson.TypeMaxKey:
		return bson.A{id("$exists", false)}
	}
	conditions := bson.A{idNot("$lte", v)}
	if isNumber(v) && !isNaN(v) {
		// NaN comes before all other numbers, but no comparison with one of them finds it.
		conditions = append(conditions, bson.D{{Key: "$or", Value: bson.A{id("$gt", v), idNot("$type", "number")}}})
	}
	for _, bracket := range brackets {
		if contains(bracket, v.Type) {
			break
		}
		switch bracket[0] {
		case bson.TypeInt32:
			conditions = append(conditions, idNot("$type", "number")) // all four of them
		case bson.TypeString:
			conditions = append(conditions, idNot("$gte", "")) // symbols as well
		default:
			conditions = append(conditions, idNot("$type", int32(bracket[0])))
		}
	}
	return conditions
}

func id(operator string, operand any) bson.D {
	return bson.D{{Key: "_id", Value: bson.D{{Key: operator, Value: operand}}}}
}

func idNot(operator string, operand any) bson.D {
	return id("$not", bson.D{{Key: operator, Value: operand}})
}

func contains(bracket []bson.Type, t bson.Type) bool {
	for _, b := range bracket {
		if b == t {
			return true
		}
	}
	return false
}

func isNumber(v bson.RawValue) bool { return contains(brackets[1], v.Type) }

func isNaN(v bson.RawValue) bool {
	if d, ok := v.Decimal128OK(); ok {
		return d.IsNaN()
	}
	f, ok := v.DoubleOK()
	return ok && math.IsNaN(f)
}
