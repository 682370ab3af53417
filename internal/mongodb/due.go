package mongodb

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// The fields of a record that a sync run knows, other than its _id and its name.
const (
	lastSynced = "lastSynced"
	updatedAt  = "updatedAt"
)

// selected returns the filter for the records of a selection.
//
// Comparisons with a date find dates only, so what is no date has to be asked for: a missing field, null, a string, a
// number. An array is no date either, but $type and the comparisons look into it, hence its own condition.
func selected(sel syncrun.Selection) bson.D {
	if sel.Full {
		return bson.D{}
	}
	return bson.D{{Key: "$or", Value: bson.A{
		stamp(bson.D{{Key: "$not", Value: bson.D{{Key: "$type", Value: "date"}}}}),
		stamp(bson.D{{Key: "$type", Value: "array"}}),
		stamp(bson.D{{Key: "$lte", Value: date(sel.Reference.Add(-sel.Freshness))}}),
		stamp(bson.D{{Key: "$gt", Value: date(sel.Reference.Add(syncrun.MaxClockError))}}),
		stamp(date(sel.Reference)),
	}}}
}

// noValidStamp is the condition that a record's stamp is not one that a later run has put there. The first half is for
// arrays of dates, of which the second looks at the elements.
func noValidStamp(reference time.Time) bson.E {
	return bson.E{Key: "$or", Value: bson.A{
		stamp(bson.D{{Key: "$type", Value: "array"}}),
		stamp(bson.D{{Key: "$not", Value: bson.D{
			{Key: "$gt", Value: date(reference)},
			{Key: "$lte", Value: date(reference.Add(syncrun.MaxClockError))},
		}}}),
	}}
}

func stamp(condition any) bson.D { return bson.D{{Key: lastSynced, Value: condition}} }

// date is t as the database stores it, cut to the millisecond.
func date(t time.Time) bson.DateTime { return bson.NewDateTimeFromTime(t) }

// outranks tells whether a record's stamp, as it was read, comes after reference in the server's order of all values
// without being a stamp that can be believed. $max would leave such a value where it is.
func outranks(v bson.RawValue, reference time.Time) bool {
	switch v.Type {
	case bson.TypeDateTime:
		return v.DateTime() > int64(date(reference.Add(syncrun.MaxClockError)))
	case bson.TypeTimestamp, bson.TypeRegex, bson.TypeDBPointer, bson.TypeJavaScript, bson.TypeCodeWithScope, bson.TypeMaxKey:
		return true
	case bson.TypeArray:
		// It comes before dates as a whole, but whether $max takes it as a whole is nowhere promised.
		return true
	}
	return false // missing, or of a type that comes before dates
}
