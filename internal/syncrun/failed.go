// The records that fail, by name: what a run keeps of the first ones, from one attempt to the next. A record that does not fail
// costs nothing here, so its name need not be read: the store is asked for the names of those that failed.

package syncrun

import (
	"context"
	"strings"
	"time"
)

// MaxFailed is how many failed records a Checkpoint lists.
const MaxFailed = 100

const (
	// maxFailedText is how long each text about a failed record is, in bytes.
	maxFailedText = 300
	// namingTimeout bounds the question for the names of a batch's records. Without an answer people get their IDs.
	namingTimeout = 2 * time.Second
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
		if keep == KeepNames {
			r.Name = shorten(f.Record.Name)
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

// name asks the store for the names of the records that it has read without, with one command.
func (p *Pass) name(ctx context.Context, records []*Record) {
	namer, ok := p.Store.(Namer)
	var keys [][]byte
	for _, r := range records {
		if r.Name == "" {
			keys = append(keys, r.Key)
		}
	}
	if !ok || len(keys) == 0 {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, namingTimeout)
	defer cancel()
	names, err := namer.Names(bounded, keys)
	if err != nil {
		p.Log.Debug("Could not ask for the names of "+p.Noun+"s", "error", err)
	}
	for _, r := range records {
		if name, found := names[string(r.Key)]; found {
			r.Name = name
		}
	}
}
