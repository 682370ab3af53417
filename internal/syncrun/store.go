package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaxClockError is how far after a run's reference a record's stamp may lie and still be believed. A later one comes
// from a broken clock, so the record is due.
const MaxClockError = 24 * time.Hour

// ErrUnavailable is wrapped by errors of a Store or a Work that say that something could not be reached or could not
// serve, as opposed to refusing what it was asked: the same call may succeed later.
var ErrUnavailable = errors.New("store unavailable")

// Selection says which records a run visits.
type Selection struct {
	// Full selects every record. Otherwise a record is selected when it is due: when its stamp is not a date, is at or
	// before Reference - Freshness, or is more than MaxClockError after Reference. Records that carry exactly Reference
	// are selected too: those are what this very run stamped beyond its last checkpoint.
	Full bool
	// Reference is the instant that the run belongs to, in whole milliseconds.
	Reference time.Time
	// Freshness is how old a stamp may be before its record is due again.
	Freshness time.Duration
}

// Range is a contiguous part of a collection in the store's order: the records behind After, up to and including Upto.
// Its zero value is the whole collection.
type Range struct {
	// After is the key before the first record; nil for the beginning of the collection.
	After []byte `json:"after,omitempty"`
	// Upto is the key of the last record; nil for the end of the collection.
	Upto []byte `json:"upto,omitempty"`
}

// Record is what a run needs to know of one record.
type Record struct {
	// Key is the record's position in the store's order, opaque to all but the store.
	Key []byte
	// ID is the record's identifier for people to read.
	ID fmt.Stringer
	// Name is what people call the record; may be empty.
	Name string
	// State is the store's own: whatever Stamp needs to know of the record as it was read.
	State any
}

// Update is what shall become of one record.
type Update struct {
	Record Record
	// Set is fields to set in the record together with its stamp, by name; nil for none. Where a later run has stamped
	// the record already, nothing of it is set.
	Set map[string]any
}

// Failure is a record whose update failed, and why.
type Failure struct {
	Record Record
	Err    error
}

// Stamped is what became of the records of one call of Stamp.
type Stamped struct {
	// Matched counts the records that were there and that the update applied to.
	Matched int64
	// Failed lists the records whose own update failed.
	Failed []Failure
}

// Cursor walks over selected records in the order of their keys. It is used by one goroutine.
type Cursor interface {
	// Next returns the next record, and false at the end.
	Next(ctx context.Context) (Record, bool, error)
	// Close frees what the cursor holds, within a few seconds.
	Close()
}

// Store is a collection of records. It is safe for concurrent use. Every call ends within a deadline of the store's
// own, and earlier when ctx ends. Errors that may pass wrap ErrUnavailable.
type Store interface {
	// EndOfRange returns the key of the size-th record behind the given key, selected or not; nil when the collection ends
	// there or before. A nil key is the beginning of the collection.
	EndOfRange(ctx context.Context, after []byte, size int) (upto []byte, err error)
	// Count returns the number of selected records of the range.
	Count(ctx context.Context, sel Selection, within Range) (int64, error)
	// Scan returns a cursor over the selected records of the range.
	Scan(ctx context.Context, sel Selection, within Range) (Cursor, error)
	// Stamp sets each record's stamp to reference, unless it already carries a later one that can be believed, its
	// time of update to now, and what its Update says besides; nothing else of a record changes. Doing it twice is doing
	// it once. An error means that nothing is known of any of the records; what is wrong with single records is in
	// Stamped.
	Stamp(ctx context.Context, updates []Update, reference time.Time) (Stamped, error)
}
