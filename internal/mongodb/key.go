package mongodb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

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

// parseKey refuses bytes that newKey did not make.
func parseKey(b []byte) (key, error) {
	if len(b) == 0 || key(b).value().Validate() != nil {
		return nil, fmt.Errorf("%x is not the key of a record", b)
	}
	return key(b), nil
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
		if slices.Contains(bracket, v.Type) {
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

// upto returns the conditions that select the _ids up to k, with it, in the order of all types: what is neither in a
// later bracket nor, within k's own, behind k. That of a number finds NaN as well, which is not behind it.
func (k key) upto() bson.A {
	v := k.value()
	switch v.Type {
	case bson.TypeMinKey:
		return bson.A{id("$lte", v)}
	case bson.TypeMaxKey:
		return nil
	}
	conditions := bson.A{idNot("$gt", v)}
	if isNaN(v) { // nothing is found to be greater, and yet all other numbers are behind it
		conditions = bson.A{idNot("$gte", math.Inf(-1))}
	}
	var rare []bson.Type
	for _, bracket := range brackets[bracketOf(v.Type)+1:] {
		switch bracket[0] {
		case bson.TypeInt32:
			conditions = append(conditions, idNot("$type", "number"))
		case bson.TypeString:
			conditions = append(conditions, idNot("$gte", ""))
		// For the types of which there may be many, comparisons: the server can leave them out in the index, unlike $type.
		case bson.TypeBinary:
			conditions = append(conditions, idNot("$gte", bson.Binary{}))
		case bson.TypeObjectID:
			conditions = append(conditions, idNot("$gte", bson.ObjectID{}))
		case bson.TypeDBPointer, bson.TypeJavaScript, bson.TypeCodeWithScope:
			rare = append(rare, bracket[0])
		default:
			conditions = append(conditions, idNot("$type", int32(bracket[0])))
		}
	}
	return append(conditions, idNotOf(append(rare, bson.TypeMaxKey)...))
}

// bounds tells whether $gt and $lte with k find what lies on that side of it within its bracket, and nothing else. With
// MinKey and MaxKey they find all types, and with NaN no other number.
func (k key) bounds() bool {
	v := k.value()
	return bracketOf(v.Type) >= 0 && !isNaN(v)
}

// idNotOf is the condition that an _id is of none of the given rare types. A server that does not have such a type may
// refuse to be asked for it, so that it is only asked where the _id is of none of the types that all servers have.
func idNotOf(rare ...bson.Type) bson.D {
	codes := make(bson.A, len(rare))
	for i, t := range rare {
		codes[i] = int32(int8(t)) // MinKey's is -1
	}
	common := bson.A{"null", "number", "string", "object", "binData", "objectId", "bool", "date", "timestamp"}
	return bson.D{{Key: "$or", Value: bson.A{id("$type", common), idNot("$type", codes)}}}
}

func id(operator string, operand any) bson.D {
	return bson.D{{Key: "_id", Value: bson.D{{Key: operator, Value: operand}}}}
}

func idNot(operator string, operand any) bson.D {
	return id("$not", bson.D{{Key: operator, Value: operand}})
}

// bracketOf returns the index of a type's bracket; -1 for MinKey and MaxKey.
func bracketOf(t bson.Type) int {
	return slices.IndexFunc(brackets, func(bracket []bson.Type) bool { return slices.Contains(bracket, t) })
}

func isNumber(v bson.RawValue) bool { return slices.Contains(brackets[1], v.Type) }

func isNaN(v bson.RawValue) bool {
	if d, ok := v.Decimal128OK(); ok {
		return d.IsNaN()
	}
	f, ok := v.DoubleOK()
	return ok && math.IsNaN(f)
}
