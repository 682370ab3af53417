// A way to try an endpoint with the worker's own settings, without Redis, MongoDB and a run.

package worker

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
)

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

// tryEndpoint posts a batch of samples to the endpoint of cfg.TryEndpoint, and writes what a run would write of it. Its error says what
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
	records := samples()
	fmt.Fprintf(out, "Posting %d sample records to %s, %s\n", len(records), settings.LogValue(), how)
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
