// The collection of the entries: what is read from it.

package history

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

// ErrNoEntry is the error of Get if there is no such entry.
var ErrNoEntry = errors.New("there is no such entry in the history")

// States are the states of runs in the history.
func States() []jobs.State {
	return []jobs.State{jobs.StateCompleted, jobs.StateFailed, jobs.StateCancelled, jobs.StateRemoved}
}

// Kinds are the kinds of entries.
func Kinds() []string {
	return []string{jobs.EntryRun, jobs.EntryPause, jobs.EntryResume, jobs.EntryCleanup, jobs.EntryCancel}
}

// Filter selects entries. The zero value of each field but Limit selects all.
type Filter struct {
	// Job is the name of a job type.
	Job string
	// State is one of States. It selects no actions.
	State jobs.State
	// Kind is one of Kinds.
	Kind string
	// From is the earliest time of an entry, and To the first one that is too late.
	From, To time.Time
	// Text is in the ID, the error, or the ID or the name of a failed record of an entry, in upper or lower case, from the
	// beginning of a word on.
	Text string
	// Limit is how many entries a page has at most.
	Limit int
	// After is where the page before ended.
	After Cursor
}

// Cursor is a place between two entries. The zero value is before the newest one. An entry that is added later, or whose run is
// retried and ends again, moves no other entry over a place.
type Cursor struct {
	at time.Time
	id string
}

// String returns the cursor as a text that means nothing to others. It is "" for the zero value.
func (c Cursor) String() string {
	if c.id == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.at.UnixMilli(), 10) + " " + c.id))
}

// ParseCursor reads a text that String has returned.
func ParseCursor(text string) (Cursor, error) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Cursor{}, fmt.Errorf("reading a cursor: %w", err)
	}
	millis, id, _ := strings.Cut(string(decoded), " ")
	ms, err := strconv.ParseInt(millis, 10, 64)
	c := Cursor{time.UnixMilli(ms).UTC(), id}
	if err != nil || id == "" || c.String() != text {
		return Cursor{}, errors.New("reading a cursor: it is not one of the history")
	}
	return c, nil
}

// conditions returns the filter as MongoDB has it, and false if no entry can match.
func (f Filter) conditions() (bson.D, bool) {
	var all bson.D
	add := func(field string, value any) { all = append(all, bson.E{Key: field, Value: value}) }
	if f.Job != "" {
		add(fieldJob, f.Job)
	}
	switch {
	case f.State != "" && f.Kind != "" && f.Kind != jobs.EntryRun:
		return nil, false
	case f.State != "":
		add(fieldWhat, string(f.State))
	case f.Kind == jobs.EntryRun:
		add(fieldWhat, bson.D{{Key: "$in", Value: States()}})
	case f.Kind != "":
		add(fieldWhat, f.Kind)
	}
	var at bson.D
	if !f.From.IsZero() {
		at = append(at, bson.E{Key: "$gte", Value: f.From})
	}
	before, op := f.To, "$lt"
	if f.After.id != "" && (before.IsZero() || f.After.at.Before(before)) {
		before, op = f.After.at, "$lte"
	}
	if !before.IsZero() {
		at = append(at, bson.E{Key: op, Value: before})
	}
	if at != nil {
		add(fieldAt, at)
	}
	if op == "$lte" {
		add("$or", bson.A{
			bson.D{{Key: fieldAt, Value: bson.D{{Key: "$lt", Value: f.After.at}}}},
			bson.D{{Key: fieldID, Value: bson.D{{Key: "$lt", Value: f.After.id}}}},
		})
	}
	if f.Text != "" {
		text := fold(valid(f.Text))
		pattern := regexp.QuoteMeta(text)
		if first, _ := utf8.DecodeRuneInString(text); inWord(first) {
			pattern = `(^|[^\p{L}\p{N}])` + pattern
		}
		add(fieldText, bson.Regex{Pattern: pattern})
		if found := words(text); len(found) > 0 { // the longest is in the fewest entries
			longest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
			add(fieldWords, bson.Regex{Pattern: "^" + regexp.QuoteMeta(longest)})
		}
	}
	if all == nil {
		all = bson.D{}
	}
	return all, true
}

// List returns the newest entries that the filter selects, without their details: no Data, Result, EndedAttempts, FailedRecords and
// Ranges, and of a long error the beginning. next is where the next page begins. It is zero after the last one.
func (s *Store) List(ctx context.Context, f Filter) (entries []jobs.Entry, next Cursor, err error) {
	conditions, can := f.conditions()
	if !can {
		return nil, Cursor{}, nil
	}
	collection, bounded, cancel, err := s.begin(ctx, commandTimeout)
	if err != nil {
		return nil, Cursor{}, err
	}
	defer cancel()
	limit := f.Limit + 1 // to know whether there are more
	opts := options.Find().SetSort(newest).SetLimit(int64(limit)).SetBatchSize(int32(limit)).SetProjection(bson.D{{Key: fieldSummary, Value: 1}})
	found, err := collection.Find(bounded, conditions, opts)
	var docs []bson.Raw
	if err == nil {
		err = found.All(bounded, &docs)
	}
	if err != nil {
		return nil, Cursor{}, s.fail(ctx, "listing entries of", "find", err)
	}
	for _, doc := range docs[:min(len(docs), f.Limit)] {
		e, err := read(doc, fieldSummary)
		if err != nil {
			return nil, Cursor{}, fmt.Errorf("listing entries of %s: %w", s.Name(), err)
		}
		entries = append(entries, e)
	}
	if n := len(entries); len(docs) > n {
		next = Cursor{entries[n-1].At, entries[n-1].ID}
	}
	return entries, next, nil
}

// Get returns an entry by its ID, with all details. The error is ErrNoEntry if there is none.
func (s *Store) Get(ctx context.Context, id string) (jobs.Entry, error) {
	collection, bounded, cancel, err := s.begin(ctx, commandTimeout)
	if err != nil {
		return jobs.Entry{}, err
	}
	defer cancel()
	opts := options.FindOne().SetProjection(bson.D{{Key: fieldEntry, Value: 1}})
	doc, err := collection.FindOne(bounded, bson.D{{Key: fieldID, Value: id}}, opts).Raw()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return jobs.Entry{}, ErrNoEntry
	case err != nil:
		return jobs.Entry{}, s.fail(ctx, "reading an entry of", "find", err)
	}
	e, err := read(doc, fieldEntry)
	if err != nil {
		return jobs.Entry{}, fmt.Errorf("reading an entry of %s: %w", s.Name(), err)
	}
	return e, nil
}
