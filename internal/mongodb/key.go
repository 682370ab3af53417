// The order of the records. A collection can have _ids of several types, but MongoDB's comparisons only find values of one
// type.

package mongodb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// key is an _id as a position in the collection: the byte of its BSON type, and its value as the server sent it. Collections
// that grew over years have _ids of several types, so the position is one in the order of all types.
type key []byte

// newKey copies v, which is part of the buffer of a whole batch.
func newKey(v bson.RawValue) key {
	k := make(key, 0, 1+len(v.Value))
	return append(append(k, byte(v.Type)), v.Value...)
}

// keySlab makes the keys of a batch, which share their memory.
type keySlab struct {
	made  []key
	bytes []byte
}

// keySize is enough for an ObjectID.
const keySize = 13

func newKeySlab(n int) *keySlab {
	return &keySlab{made: make([]key, 0, n), bytes: make([]byte, 0, n*keySize)}
}

// add copies v as newKey does. There must not be more keys than newKeySlab was told.
func (k *keySlab) add(v bson.RawValue) *key {
	size := 1 + len(v.Value)
	if cap(k.bytes)-len(k.bytes) < size {
		k.bytes = make([]byte, 0, max(size, cap(k.made)*keySize))
	}
	from := len(k.bytes)
	k.bytes = append(append(k.bytes, byte(v.Type)), v.Value...)
	k.made = append(k.made, k.bytes[from:len(k.bytes):len(k.bytes)])
	return &k.made[len(k.made)-1]
}

// parseKey returns the key that newKey made, or an error if newKey cannot have made it.
func parseKey(b []byte) (key, error) {
	if len(b) == 0 || key(b).value().Validate() != nil {
		return nil, fmt.Errorf("a key must be the type and value of an _id, was %x", b)
	}
	return key(b), nil
}

func (k key) value() bson.RawValue { return bson.RawValue{Type: bson.Type(k[0]), Value: k[1:]} }

// String returns the _id for people to read: an ObjectID as hexadecimal digits, a string as it is, any other as Extended JSON.
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

// brackets are the BSON types of an _id in the server's order. The types in one bracket compare with each other. Arrays, regular
// expressions and undefined cannot be an _id. MinKey and MaxKey are not here because they compare with everything.
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

// after returns the conditions that select the _ids behind k in the order of all types. Comparison operators stay within the
// bracket of their operand. So the conditions exclude earlier brackets and, in k's own bracket, all up to k. They exclude the
// _ids before k, instead of naming those after it, because then the server can seek to k in the index.
//
// They do not exclude MinKey, because some servers do not know it. The reader must skip it.
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
		// NaN comes before all other numbers, but no comparison with a number finds it.
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

// upto returns the conditions that select the _ids up to and including k in the order of all types. They exclude later brackets
// and, in k's own bracket, all behind k. If k is a number they also select NaN, which is not behind it.
func (k key) upto() bson.A {
	v := k.value()
	switch v.Type {
	case bson.TypeMinKey:
		return bson.A{id("$lte", v)}
	case bson.TypeMaxKey:
		return nil
	}
	conditions := bson.A{idNot("$gt", v)}
	if isNaN(v) { // $gt finds nothing, and yet all other numbers are behind NaN
		conditions = bson.A{idNot("$gte", math.Inf(-1))}
	}
	var rare []bson.Type
	for _, bracket := range brackets[bracketOf(v.Type)+1:] {
		switch bracket[0] {
		case bson.TypeInt32:
			conditions = append(conditions, idNot("$type", "number"))
		case bson.TypeString:
			conditions = append(conditions, idNot("$gte", ""))
		// Comparisons, for types that can be many: the server excludes them in the index, which it cannot do with $type.
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

// bounds reports whether $gt and $lte with k select exactly the _ids on that side of k in its bracket. MinKey and MaxKey would
// select all types, and NaN no other number.
func (k key) bounds() bool {
	v := k.value()
	return bracketOf(v.Type) >= 0 && !isNaN(v)
}

// idNotOf is the condition that an _id has none of the given rare types. A server that does not know such a type can refuse a
// comparison with it. So the condition first looks for the types that all servers know.
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

// bracketOf returns the index of a type's bracket, or -1 for MinKey and MaxKey.
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
