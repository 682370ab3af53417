// What a run needs of the place where records are.

package syncrun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MaxClockError is how far clocks can be apart before their stamps count as those of a broken clock, see Selection.Latest.
const MaxClockError = 10 * time.Minute

// ErrUnavailable is wrapped by errors of a Store that can pass: something could not be reached, or could not serve.
// The same call may succeed later.
var ErrUnavailable = errors.New("store unavailable")

// Selection says which records a run visits.
type Selection struct {
	// Full selects every record. Otherwise a record is selected if it is due: its stamp is not a date, is at or before
	// Reference - Freshness, or is after Latest. A record whose stamp is exactly Reference is selected, too, so that it is
	// counted: the run may have stamped it after its last checkpoint.
	Full bool
	// Reference is the run's reference time, in whole milliseconds.
	Reference time.Time
	// Freshness is how old a stamp can be before its record is due again.
	Freshness time.Duration
	// Named asks Scan for the records' names, even if the store would not read them.
	Named bool
}

// Latest returns the latest stamp that is believed: Freshness + MaxClockError after Reference. A later one comes from a broken
// clock. A run that is late, such as one that is retried by hand a day after its tick, must not replace the stamps of later
// runs. So for such a run the time counts from now.
func (s Selection) Latest() time.Time {
	from := s.Reference
	if now := time.Now(); now.After(from) {
		from = now
	}
	return from.Add(s.Freshness + MaxClockError)
}

// Range is a contiguous part of a collection, in the store's order: the records behind After, up to and including Upto. The zero
// value is the whole collection.
type Range struct {
	// After is the key before the first record. It is nil at the beginning of the collection.
	After []byte `json:"after,omitempty"`
	// Upto is the key of the last record. It is nil at the end of the collection.
	Upto []byte `json:"upto,omitempty"`
	// Records is how many records the range had when it was made, selected or not; the last range had no more than that. It is 0 if
	// that is not known.
	Records int64 `json:"records,omitempty"`
}

// Record is what a run knows of one record.
type Record struct {
	// Key is the record's position in the store's order. Only the store understands it.
	Key []byte
	// ID is the record's identifier, for people to read.
	ID fmt.Stringer
	// Name is what people call the record. It is "" if it has no name, or if the store has not read it, see Namer.
	Name string
	// Data is the fields of the record that the store was asked for. It is nil if it was asked for none.
	Data any
	// Stamped is true if the run itself has stamped the record, in an earlier attempt: its stamp is exactly the run's Reference.
	Stamped bool
	// State is for the store's Stamp: what it must know of the record as it was read.
	State any
}

// Update says how to update one record.
type Update struct {
	Record Record
	// Set and Unset are the fields to set and to remove together with the stamp, by name. They can be nil. If a later run has
	// stamped the record already, nothing of it changes.
	Set   map[string]any
	Unset []string
}

// Failure is a record whose update failed, and why.
type Failure struct {
	Record Record
	Err    error
}

// Stamped is the result of one call of Stamp.
type Stamped struct {
	// Matched counts the records that were there and that the update applied to.
	Matched int64
	// Failed lists the records whose own update failed.
	Failed []Failure
}

// Cursor walks over selected records, in the order of their keys. One goroutine uses it.
type Cursor interface {
	// Read reads the next records into the given places, and returns how many there were: fewer than places only at the end, or with
	// an error.
	Read(ctx context.Context, records []Record) (int, error)
	// Close frees the cursor, within a few seconds.
	Close()
}

// Store is a collection of records. It is safe for concurrent use. Every call ends within a deadline of the store's own, and
// earlier if ctx ends. Errors that can pass wrap ErrUnavailable.
type Store interface {
	// EndOfRange returns the key of the size-th record behind the given key, selected or not. It returns nil if the collection
	// ends there or before. A nil key is the beginning of the collection. From there it may go by about how many records there are.
	EndOfRange(ctx context.Context, after []byte, size int) (upto []byte, err error)
	// Count returns the number of selected records of the range. Of a full selection of the whole collection it may return about that.
	Count(ctx context.Context, sel Selection, within Range) (int64, error)
	// Scan returns a cursor over the selected records of the range.
	Scan(ctx context.Context, sel Selection, within Range) (Cursor, error)
	// Stamp sets the stamp of each record to the selection's Reference, unless a later run has stamped it already. It also sets
	// the record's time of update to now, and the fields of its Update. Nothing else of a record changes. Doing it twice is
	// doing it once.
	// With an error, it is not known which records were updated. A failure of a single record is no error, but in Stamped.
	Stamp(ctx context.Context, updates []Update, sel Selection) (Stamped, error)
}

// Finder is a Store that can find selected records without a walk over all, if they are few.
type Finder interface {
	// Few returns a store with the selected records of now only, or false if they are not few, or if it cannot find them faster than
	// a scan. It must cost next to nothing then.
	Few(ctx context.Context, sel Selection) (Store, bool, error)
}
