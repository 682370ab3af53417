// The records that fail, by name: what a run keeps of the first ones, from one attempt to the next. A record that does not fail
// costs nothing here, so its name need not be read: the store is asked for the names of those that failed, at the end.

package syncrun

import (
	"context"
	"slices"
	"strings"
)

// MaxFailed is how many failed records a Checkpoint lists.
const MaxFailed = 100

const (
	// maxFailedText is how long each text about a failed record is, in bytes.
	maxFailedText = 300
	// maxFailedKey is how long a key is at most that is kept to ask for the record's name.
	maxFailedKey = 1024
)

// KeepFailed says what a pass keeps of the records that fail.
type KeepFailed int

const (
	// KeepNothing only counts them.
	KeepNothing KeepFailed = iota
	// KeepIDs keeps which ones failed, and why.
	KeepIDs
	// KeepNames keeps their names, too.
	KeepNames
)

// FailedRecord is a record whose update failed.
type FailedRecord struct {
	// ID is the record's identifier, for people to read.
	ID string `json:"id"`
	// Name is what people call the record. It is "" if that is not known, or not kept.
	Name string `json:"name,omitempty"`
	// Reason is why it failed.
	Reason string `json:"reason"`
	// Key is the record's position in the store's order, for as long as the store can be asked for its name.
	Key []byte `json:"key,omitempty"`
}

// Namer is a Store that knows what people call its records.
type Namer interface {
	// Names returns the names of the records with the keys, by key, as far as it finds them.
	Names(ctx context.Context, keys [][]byte) (map[string]string, error)
}

// addFailed adds records that have failed, up to MaxFailed.
func (c *Checkpoint) addFailed(keep KeepFailed, failed []Failure) {
	if keep == KeepNothing {
		return
	}
	for _, f := range failed[:min(len(failed), MaxFailed-len(c.Failed))] {
		r := FailedRecord{ID: shorten(f.Record.ID.String()), Reason: shorten(f.Err.Error())}
		switch {
		case keep != KeepNames:
		case f.Record.Name != "":
			r.Name = shorten(f.Record.Name)
		case len(f.Record.Key) <= maxFailedKey:
			r.Key = f.Record.Key
		}
		c.Failed = append(c.Failed, r)
	}
}

// shorten returns valid text of at most maxFailedText bytes.
func shorten(text string) string {
	const end = "…"
	if len(text) > maxFailedText {
		return strings.ToValidUTF8(text[:maxFailedText-len(end)], "") + end
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// NameFailed returns the records with the names that the store finds for those that have none yet. It asks once.
func NameFailed(ctx context.Context, store Store, failed []FailedRecord) ([]FailedRecord, error) {
	namer, ok := store.(Namer)
	var keys [][]byte
	for _, r := range failed {
		if r.Key != nil {
			keys = append(keys, r.Key)
		}
	}
	if !ok || len(keys) == 0 {
		return failed, nil
	}
	names, err := namer.Names(ctx, keys)
	if err != nil {
		return failed, err
	}
	named := slices.Clone(failed)
	for i, r := range named {
		if r.Key != nil {
			named[i].Name, named[i].Key = shorten(names[string(r.Key)]), nil
		}
	}
	return named, nil
}
