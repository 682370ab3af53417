// Which records are due, and which stamps are valid.

package mongodb

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// stampField is the name of the field with the stamp.
type stampField string

// is returns the condition on the stamp, or the stamp that an update sets.
func (f stampField) is(value any) bson.D { return bson.D{{Key: string(f), Value: value}} }

// selected returns the filter for the records of a selection.
//
// Comparisons with a date only find dates. So a condition of its own finds stamps that are no date: a missing field, null, a
// string, a number. Another one finds arrays, because $type and the comparisons look at an array's elements.
func (f stampField) selected(sel syncrun.Selection) bson.D {
	if sel.Full {
		return bson.D{}
	}
	return bson.D{{Key: "$or", Value: bson.A{
		f.is(bson.D{{Key: "$not", Value: bson.D{{Key: "$type", Value: "date"}}}}),
		f.is(bson.D{{Key: "$type", Value: "array"}}),
		f.is(bson.D{{Key: "$lte", Value: date(sel.Reference.Add(-sel.Freshness))}}),
		f.is(bson.D{{Key: "$gt", Value: date(sel.Latest())}}),
		f.is(date(sel.Reference)),
	}}}
}

// noValidStamp is the condition that no later run has stamped the record, with a time up to the latest that is believed. Its
// first half finds arrays of dates: the second half would look at their elements.
func (f stampField) noValidStamp(reference, latest time.Time) bson.E {
	return bson.E{Key: "$or", Value: bson.A{
		f.is(bson.D{{Key: "$type", Value: "array"}}),
		f.is(bson.D{{Key: "$not", Value: bson.D{
			{Key: "$gt", Value: date(reference)},
			{Key: "$lte", Value: date(latest)},
		}}}),
	}}
}

// date returns t as the database stores it, rounded down to the millisecond.
func date(t time.Time) bson.DateTime { return bson.NewDateTimeFromTime(t) }

// outranks reports whether $max would keep a stamp that must be replaced: the stamp comes after the run's in the server's order
// of all values, and is no valid stamp of a later run.
func outranks(v bson.RawValue, latest time.Time) bool {
	switch v.Type {
	case bson.TypeDateTime:
		return v.DateTime() > int64(date(latest))
	case bson.TypeTimestamp, bson.TypeRegex, bson.TypeDBPointer, bson.TypeJavaScript, bson.TypeCodeWithScope, bson.TypeMaxKey:
		return true
	case bson.TypeArray:
		// An array as a whole comes before dates. But MongoDB does not promise that $max takes it as a whole.
		return true
	}
	return false // it is missing, or its type comes before dates
}
