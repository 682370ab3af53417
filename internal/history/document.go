// The form of an entry in MongoDB.

package history

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

const (
	// maxEntry is the longest text of an entry that is stored whole, in bytes. A document has at most 16 MiB.
	maxEntry = 12 << 20
	// maxText is how much text of an entry can be searched, in bytes.
	maxText = 64 << 10
	// maxWord is how much of each word is in the index, in bytes.
	maxWord = 64
	// maxSummaryError is how much of an error a list shows, in bytes.
	maxSummaryError = 2_000
)

// The names of the fields that are asked for.
const (
	fieldID      = "_id"
	fieldJob     = "job"
	fieldWhat    = "what"
	fieldAt      = "at"
	fieldText    = "text"
	fieldWords   = "words"
	fieldSummary = "summary"
	fieldEntry   = "entry"
	fieldExpires = "expiresAt"
	fieldKeep    = "keep"
)

// document is an entry in MongoDB.
type document struct {
	ID  string `bson:"_id"`
	Job string `bson:"job"`
	// What is the state of a run, or the kind of an action: one field for both, so that one index finds either.
	What string    `bson:"what"`
	At   time.Time `bson:"at"`
	// Text is what a search looks into, in lower case, and Words are its words, each once: an index on them finds the few entries in
	// which a word begins so.
	Text  string   `bson:"text"`
	Words []string `bson:"words"`
	// Summary is the entry without its details, and Entry the whole one. Both are JSON.
	Summary string `bson:"summary"`
	Entry   string `bson:"entry"`
	// ExpiresAt is when the entry is to go: Keep seconds after At.
	ExpiresAt time.Time `bson:"expiresAt"`
	Keep      int64     `bson:"keep"`
}

// newDocument returns the document of an entry that is kept for a while. The error is one that does not pass.
func newDocument(e jobs.Entry, keep time.Duration) (document, error) {
	whole, err := json.Marshal(e)
	if err != nil {
		return document{}, fmt.Errorf("encoding an entry of the history: %w", err)
	}
	d := document{
		ID: valid(e.ID), Job: valid(e.Job), What: e.Kind, At: e.At, Text: searchText(e), Entry: valid(string(whole)),
		ExpiresAt: e.At.Add(keep), Keep: int64(keep / time.Second),
	}
	if e.Kind == jobs.EntryRun {
		d.What = string(e.State)
	}
	e.Data, e.Result, e.EndedAttempts, e.Rescues, e.FailedRecords, e.Ranges = nil, nil, nil, nil, nil, nil
	e.Error = cut(e.Error, maxSummaryError)
	short, err := json.Marshal(e)
	if err != nil {
		return document{}, fmt.Errorf("encoding an entry of the history: %w", err)
	}
	d.Summary = valid(string(short))
	if len(d.Entry) > maxEntry {
		d = d.reduced()
	}
	d.Words = words(d.Text)
	return d, nil
}

// reduced returns the document without details.
func (d document) reduced() document {
	d.Entry, d.Text = d.Summary, fold(d.ID)
	d.Words = words(d.Text)
	return d
}

// read returns the entry that a field of a document has.
func read(doc bson.Raw, field string) (jobs.Entry, error) {
	var e jobs.Entry
	text, ok := doc.Lookup(field).StringValueOK()
	if !ok {
		return e, fmt.Errorf("the document %s has no text in %s", doc.Lookup(fieldID), field)
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return e, fmt.Errorf("reading %s of the document %s: %w", field, doc.Lookup(fieldID), err)
	}
	return e, nil
}

// searchText returns what a search looks into.
func searchText(e jobs.Entry) string {
	var b strings.Builder
	b.WriteString(e.ID)
	for _, text := range []string{e.Target, e.Error} {
		if text != "" {
			b.WriteString("\n" + text)
		}
	}
	for _, r := range e.FailedRecords {
		b.WriteString("\n" + r.ID)
		if r.Name != "" {
			b.WriteString("\n" + r.Name)
		}
	}
	return cut(fold(valid(b.String())), maxText)
}

// words returns the words of a text, each once.
func words(text string) []string {
	found := strings.FieldsFunc(text, func(r rune) bool { return !inWord(r) })
	for i, word := range found {
		found[i] = cut(word, maxWord)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func inWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }

// fold returns a text in the form in which searches compare it.
func fold(text string) string { return strings.ToLower(text) }

// valid returns a text that BSON can have.
func valid(text string) string { return strings.ToValidUTF8(text, "\ufffd") }

// cut returns at most the first n bytes of a text.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}
