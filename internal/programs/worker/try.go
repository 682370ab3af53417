// A way to try an endpoint with the worker's own settings, without Redis, MongoDB and a run.

package worker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
)

// maxLine bounds a line of a file with records, in bytes: MongoDB's largest document, with room for its form in JSON.
const maxLine = 64 << 20

// recordsOf returns the documents of a file, one in each line as Extended JSON; without a file the samples.
func recordsOf(file string) (records []any, err error) {
	if file == "" {
		return samples(), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for number := 1; lines.Scan(); number++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var record bson.D
		if err := bson.UnmarshalExtJSON(lines.Bytes(), false, &record); err != nil {
			return nil, fmt.Errorf("line %d of %s must be a document in Extended JSON: %w", number, file, err)
		}
		records = append(records, record)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if records == nil {
		return nil, fmt.Errorf("there is no record in %s", file)
	}
	return records, nil
}

// samples returns records like those of the demo, with each kind of _id that old collections have.
func samples() []any {
	sample := func(id any, name, email string, more ...bson.E) any {
		return append(bson.D{
			{Key: "_id", Value: id}, {Key: "username", Value: name}, {Key: "name", Value: name}, {Key: "title", Value: name}, {Key: "email", Value: email},
		}, more...)
	}
	created := bson.NewDateTimeFromTime(time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC))
	return []any{
		sample(bson.ObjectID{0x65, 0xa1, 0xf0, 0xc2, 0xe4, 0xb0, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6}, "amber-otter-0", "amber-otter-0@codex.example",
			bson.E{Key: "createdAt", Value: created}),
		sample("user-17", "d'arc-17", "d.arc-17@codex.example", bson.E{Key: "roles", Value: bson.A{"editor", "billing"}}),
		sample(int32(4711), "Дмитро4711", ""),
		sample(int64(9007199254740993), "<b>bold3</b>", "bold3@codex.example", bson.E{Key: "settings", Value: bson.D{{Key: "theme", Value: "dark"}}}),
		bson.D{{Key: "_id", Value: "no-name"}},
	}
}

// tryEndpoint posts a batch of records to the endpoint of cfg.TryEndpoint, and writes what a run would write of it. Its error says what
// the answer would mean for a run.
func tryEndpoint(ctx context.Context, types []jobtype.Type, cfg config.Config, out io.Writer) error {
	settings := cfg.Endpoints[cfg.TryEndpoint]
	client, err := endpoint.New(settings.Options, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	at := slices.IndexFunc(types, func(t jobtype.Type) bool { return t.Definition.Name == cfg.TryEndpoint })
	how := "signed"
	switch len(settings.Secrets) {
	case 0:
		how = "unsigned"
	case 2:
		how = "signed with both secrets"
	}
	records, err := recordsOf(cfg.TryRecords)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Posting %d records to %s, %s\n", len(records), settings.LogValue(), how)
	begun := time.Now()
	written, err := jobtest.Update(ctx, ofEndpoint(types[at], client), jobtest.With{}, records...)
	took := time.Since(begun).Round(time.Millisecond)
	if err != nil {
		return fmt.Errorf("after %s: %w\nA run would %s", took, err, consequence(err))
	}
	fmt.Fprintf(out, "Answered after %s. A run would write:\n", took)
	for _, w := range written {
		fmt.Fprintf(out, "  %-26s %s\n", w.ID, whatOf(w))
	}
	return nil
}

// consequence says what an error would mean for a run.
func consequence(err error) string {
	if after, waits := jobtest.Waits(err); waits {
		if after > 0 {
			return fmt.Sprintf("wait for %s, and send the batch again", after)
		}
		return "wait, and send the batch again"
	}
	if _, halves := jobtest.Halves(err); halves {
		return "send the batch again, and then in halves, down to the record that causes it"
	}
	return "fail this attempt"
}

// whatOf says what becomes of a record.
func whatOf(w jobtest.Written) string {
	if w.Err != nil {
		return "error: " + w.Err.Error()
	}
	text := "its dates"
	if len(w.Set) > 0 {
		set, err := bson.MarshalExtJSON(w.Set, false, false)
		if err != nil {
			return "error: " + err.Error()
		}
		text += ", and " + string(set)
	}
	if len(w.Unset) > 0 {
		text += ", and remove " + strings.Join(w.Unset, ", ")
	}
	return text
}
