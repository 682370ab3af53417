// Relaxed Extended JSON, byte for byte as MongoDB's driver writes it. The driver's encoder would take most of a request's processor
// time. So the types that most fields have are written here, and the rest is left to the driver.

package endpoint

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// maxSafe is the largest integer that JavaScript keeps.
const maxSafe = 1<<53 - 1

// dateLayout is how a date is written, in UTC.
const dateLayout = "2006-01-02T15:04:05.999Z07:00"

// endOfDates is the first time that is written as a number, in milliseconds. So is one before 1970.
var endOfDates = time.Date(10000, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// appendValue appends a value. In an exact one each integer that JavaScript would round is an object.
func appendValue(b []byte, v bsoncore.Value, exact bool) ([]byte, error) {
	switch v.Type {
	case bsoncore.TypeObjectID:
		return append(hex.AppendEncode(append(b, `{"$oid":"`...), v.Data), `"}`...), nil
	case bsoncore.TypeString:
		return appendText(b, v.Data[4:len(v.Data)-1])
	case bsoncore.TypeEmbeddedDocument:
		b, err := appendMembers(append(b, '{'), v.Data, true, exact, func([]byte) bool { return true })
		return closeWith(b, '}'), err
	case bsoncore.TypeArray:
		b, err := appendMembers(append(b, '['), v.Data, false, exact, func([]byte) bool { return true })
		return closeWith(b, ']'), err
	case bsoncore.TypeBoolean:
		return strconv.AppendBool(b, v.Boolean()), nil
	case bsoncore.TypeNull:
		return append(b, "null"...), nil
	case bsoncore.TypeInt32:
		return strconv.AppendInt(b, int64(v.Int32()), 10), nil
	case bsoncore.TypeInt64:
		n := v.Int64()
		if exact && (n > maxSafe || n < -maxSafe) {
			return append(strconv.AppendInt(append(b, `{"$numberLong":"`...), n, 10), `"}`...), nil
		}
		return strconv.AppendInt(b, n, 10), nil
	case bsoncore.TypeDouble:
		if f := v.Double(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			text := strconv.FormatFloat(f, 'G', -1, 64)
			if !strings.ContainsAny(text, ".E") {
				text += ".0"
			}
			return append(b, text...), nil
		}
	case bsoncore.TypeDateTime:
		if at := v.DateTime(); at >= 0 && at < endOfDates {
			return append(time.UnixMilli(at).UTC().AppendFormat(append(b, `{"$date":"`...), dateLayout), `"}`...), nil
		}
	}
	return appendByDriver(b, bson.RawValue{Type: bson.Type(v.Type), Value: v.Data})
}

// appendMembers appends the elements of a document or an array that are to be kept, each with a comma behind it.
func appendMembers(b, doc []byte, named, exact bool, keep func(name []byte) bool) (_ []byte, err error) {
	for rest := doc[4:]; len(rest) > 1; { // without its length, up to its end
		var e bsoncore.Element
		var ok bool
		if e, rest, ok = bsoncore.ReadElement(rest); !ok {
			return nil, errors.New("it is no valid BSON")
		}
		if !keep(e.KeyBytes()) {
			continue
		}
		if named {
			if b, err = appendText(b, e.KeyBytes()); err != nil {
				return nil, err
			}
			b = append(b, ':')
		}
		if b, err = appendValue(b, e.Value(), exact); err != nil {
			return nil, err
		}
		b = append(b, ',')
	}
	return b, nil
}

// closeWith ends a list of members.
func closeWith(b []byte, end byte) []byte { return append(bytes.TrimSuffix(b, []byte{','}), end) }

// appendText appends a text or a name.
func appendText(b, text []byte) ([]byte, error) {
	for rest := text; len(rest) > 0; {
		r, size := rune(rest[0]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(rest)
		}
		if r < ' ' || r == '"' || r == '\\' || r == '\u2028' || r == '\u2029' || r == utf8.RuneError { // or no UTF-8
			return appendByDriver(b, string(text))
		}
		rest = rest[size:]
	}
	return append(append(append(b, '"'), text...), '"'), nil
}

// appendByDriver appends what the driver writes for a value.
func appendByDriver(b []byte, v any) ([]byte, error) {
	const before, behind = `{"v":`, `}`
	doc, err := bson.MarshalExtJSON(bson.D{{Key: "v", Value: v}}, false, false)
	if err != nil {
		return nil, err
	}
	return append(b, doc[len(before):len(doc)-len(behind)]...), nil
}
