package job_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
)

type payload struct {
	To string `json:"to"`
}

func work(context.Context, *job.Run[payload]) (string, error) { return "", nil }

func stamp(_ context.Context, batch *job.Batch[bson.M]) ([]job.Outcome, error) {
	return make([]job.Outcome, len(batch.Records)), nil
}

// What is wrong with a job type is said before a program starts.
func TestErr(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		of   job.Type
		want string // "" for nothing
	}{
		{"job", job.New(job.Job[payload, string]{Name: "a", Do: work}), ""},
		{"sync", job.NewSync(job.Sync[struct{}]{Name: "a", Collection: "c"}), ""},
		{"not unique", job.New(job.Job[payload, string]{Name: "a", Do: work, Unique: job.NotUnique}), ""},
		{"unique for", job.New(job.Job[payload, string]{Name: "a", Do: work, Unique: job.UniqueFor(time.Hour)}), ""},
		{"unique for too long", job.New(job.Job[payload, string]{Name: "a", Do: work, Unique: job.UniqueFor(10000 * time.Hour)}), "720h"},
		{"unique for less than nothing", job.New(job.Job[payload, string]{Name: "a", Do: work, Unique: job.UniqueFor(-1)}), "720h"},
		{"schedule", job.New(job.Job[payload, string]{
			Name: "a", Do: work, Options: job.Options{Schedule: job.Schedule{Every: time.Minute}},
		}), ""},
		{"no name", job.New(job.Job[payload, string]{Do: work}), "lower-case words"},
		{"no Do", job.New(job.Job[payload, string]{Name: "a"}), "its Do is missing"},
		{"payload is no struct", job.New(job.Job[string, string]{
			Name: "a", Do: func(context.Context, *job.Run[string]) (string, error) { return "", nil },
		}), "its payload must be a struct, was string"},
		{"field without a name", job.New(job.Job[struct{ To string }, string]{
			Name: "a", Do: func(context.Context, *job.Run[struct{ To string }]) (string, error) { return "", nil },
		}), "the payload's field To must be exported, and have a name in a json tag"},
		{"negative", job.New(job.Job[payload, string]{Name: "a", Do: work, PerWorker: -1}), "must not be negative"},
		{"rate", job.New(job.Job[payload, string]{Name: "a", Do: work, Options: job.Options{Rate: job.Rate{Calls: 5}}}), "rate"},
		{"interval", job.New(job.Job[payload, string]{
			Name: "a", Do: work, Options: job.Options{Schedule: job.Schedule{Every: 7 * time.Minute}},
		}), "cannot be aligned"},
		{"no collection", job.NewSync(job.Sync[struct{}]{Name: "a"}), "its Collection is missing"},
		{"no fields", job.NewSync(job.Sync[bson.M]{Name: "a", Collection: "c", Update: stamp}), "its Fields are missing"},
		{"all fields", job.NewSync(job.Sync[bson.M]{Name: "a", Collection: "c", Update: stamp, Fields: []string{"*"}}), ""},
		{"all fields and one", job.NewSync(job.Sync[bson.M]{
			Name: "a", Collection: "c", Update: stamp, Fields: []string{"*", "email"},
		}), `the Fields must be "*" alone`},
		{"all fields twice", job.NewSync(job.Sync[bson.M]{
			Name: "a", Collection: "c", Update: stamp, Fields: []string{"*", "*"},
		}), `the Fields must be "*" alone`},
		{"filter", job.NewSync(job.Sync[struct{}]{Name: "a", Collection: "c", Filter: 5}), "its Filter must be a MongoDB query"},
		{"dates", job.NewSync(job.Sync[struct{}]{Name: "a", Collection: "c", SyncedField: "updatedAt"}), "must be different"},
	} {
		switch err := test.of.Err(); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// Two syncs must not keep their dates in the same field: each would take the records of the other for done.
func TestSyncsOfOneCollection(t *testing.T) {
	t.Parallel()
	sync := func(name, field string) jobtype.Type {
		return jobtype.Of(job.NewSync(job.Sync[struct{}]{Name: name, Collection: "c", SyncedField: field, UpdatedField: "changedAt"}))
	}
	if _, err := jobtype.Registry([]jobtype.Type{sync("a", ""), sync("b", "checkedAt")}); err != nil {
		t.Error(err)
	}
	const want = `job type "b": a keeps its date in lastSynced of c, too; give one of them another SyncedField`
	if _, err := jobtype.Registry([]jobtype.Type{sync("a", ""), sync("b", "lastSynced")}); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// What New says of unique runs.
func TestUnique(t *testing.T) {
	t.Parallel()
	for unique, want := range map[job.Unique]tasks.Unique{
		{}:                       {},
		job.NotUnique:            {Mode: tasks.UniqueNever},
		job.UniqueFor(time.Hour): {Mode: tasks.UniqueFor, For: time.Hour},
	} {
		got := jobtype.Of(job.New(job.Job[payload, string]{Name: "a", Do: work, Unique: unique})).Definition.Unique
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if job.Full != tasks.SyncFull || job.Incremental != tasks.SyncIncremental {
		t.Errorf("the sync types are %s and %s", job.Full, job.Incremental)
	}
}

// inner and outer show how a struct names its fields.
type inner struct{ City string }

type outer struct {
	ID     int    `bson:"_id"`
	Login  string `bson:"login,omitempty"`
	Plain  string
	Hidden string `bson:"-"`
	inner  int
	Inner  inner `bson:",inline"`
}

// A record has the fields of its struct, and of others nothing.
func TestRecordDecodes(t *testing.T) {
	t.Parallel()
	seen := outer{inner: 1}
	_, err := jobtest.Update(t.Context(), job.Sync[outer]{
		Name: "a", Collection: "c",
		Update: func(_ context.Context, batch *job.Batch[outer]) ([]job.Outcome, error) {
			seen = batch.Records[0].Data
			return make([]job.Outcome, 1), nil
		},
	}, jobtest.With{}, bson.M{"_id": 7, "login": "ada", "plain": "p", "hidden": "h", "city": "Delft"})
	if want := (outer{ID: 7, Login: "ada", Plain: "p", Inner: inner{City: "Delft"}}); err != nil || seen != want {
		t.Errorf("%+v, %v, want %+v", seen, err, want)
	}
}

// What Update gets of a record is what it has asked for.
func TestOnlyTheFields(t *testing.T) {
	t.Parallel()
	document := bson.D{
		{Key: "_id", Value: "x"}, {Key: "login", Value: "ada"},
		{Key: "address", Value: bson.D{{Key: "city", Value: "Delft"}, {Key: "zip", Value: "2611"}}},
	}
	for _, test := range []struct {
		fields []string
		want   bson.D
	}{
		{[]string{"address.city"}, bson.D{document[0], {Key: "address", Value: bson.D{{Key: "city", Value: "Delft"}}}}},
		{[]string{}, document[:1]},
		{[]string{"*"}, document},
	} {
		var seen bson.D
		_, err := jobtest.Update(t.Context(), job.Sync[bson.D]{
			Name: "a", Collection: "c", Fields: test.fields,
			Update: func(_ context.Context, batch *job.Batch[bson.D]) ([]job.Outcome, error) {
				seen = batch.Records[0].Data
				return make([]job.Outcome, 1), nil
			},
		}, jobtest.With{}, document)
		if err != nil || !reflect.DeepEqual(seen, test.want) {
			t.Errorf("%q: %v, %v, want %v", test.fields, seen, err, test.want)
		}
	}
}

// What an attempt says of itself.
func TestAttempt(t *testing.T) {
	t.Parallel()
	const id = "1795574010000:a"
	with := jobtest.With{RunID: id, Number: 2, Retries: 3, Reference: time.UnixMilli(1795574010000)}
	var seen job.Attempt
	_, err := jobtest.Do(t.Context(), job.Job[payload, string]{Name: "a", Do: func(_ context.Context, run *job.Run[payload]) (string, error) {
		seen = run.Attempt
		return "", nil
	}}, payload{}, with)
	if err != nil || seen.RunID != id || seen.JobType != "a" || seen.Number != 2 || seen.Retries != 3 || !seen.Reference.Equal(with.Reference) {
		t.Errorf("%+v, %v", seen, err)
	}
}

// A sync without work of its own can be given an endpoint.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		of   job.Type
		want bool
	}{
		{job.NewSync(job.Sync[struct{}]{Name: "a", Collection: "c"}), true},
		{job.NewSync(job.Sync[bson.M]{Name: "a", Collection: "c", Update: stamp, Fields: []string{"*"}}), false},
		{job.New(job.Job[payload, string]{Name: "a", Do: work}), false},
	} {
		if got := jobtype.Of(test.of).Definition.Endpoint; got != test.want {
			t.Errorf("%v, want %v", got, test.want)
		}
	}
}

// What an error of Halve says, also to those who wrap it.
func TestHalve(t *testing.T) {
	t.Parallel()
	failed := errors.New("status 500")
	if err := job.Halve(nil, 3); err != nil {
		t.Errorf("of no error: %v", err)
	}
	for tries, want := range map[int]int{3: 3, 1: 1, 0: 1, -1: 1} {
		err := job.Halve(failed, tries)
		got, ok := jobtest.Halves(fmt.Errorf("asking: %w", err))
		if !ok || got != want || !errors.Is(err, failed) || err.Error() != failed.Error() {
			t.Errorf("%d tries: %v, %d, %v, want %d", tries, err, got, ok, want)
		}
	}
	for _, err := range []error{nil, failed, job.Wait(failed, 0), job.Permanent(failed)} {
		if _, ok := jobtest.Halves(err); ok {
			t.Errorf("%v asks for halves", err)
		}
	}
}

// An outcome that cannot be written fails its record alone.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	sync := func(o job.Outcome) job.Sync[struct{}] {
		return job.Sync[struct{}]{
			Name: "a", Collection: "c", SyncedField: "seen",
			Update: func(context.Context, *job.Batch[struct{}]) ([]job.Outcome, error) { return []job.Outcome{o}, nil },
		}
	}
	for _, test := range []struct {
		name string
		o    job.Outcome
		ok   bool
	}{
		{"nothing", job.Outcome{}, true},
		{"both", job.Outcome{Set: map[string]any{"a": 1, "lastSynced": 2}, Unset: []string{"b.c"}}, true},
		{"its id", job.Outcome{Set: map[string]any{"_id": 1}}, false},
		{"its date", job.Outcome{Set: map[string]any{"seen": 1}}, false},
		{"set and unset", job.Outcome{Set: map[string]any{"a": 1}, Unset: []string{"a"}}, false},
		{"part of another", job.Outcome{Set: map[string]any{"a": 1}, Unset: []string{"a.b"}}, false},
		{"no BSON", job.Outcome{Set: map[string]any{"a": func() {}}}, false},
	} {
		written, err := jobtest.Update(t.Context(), sync(test.o), jobtest.With{}, bson.M{"_id": 1})
		if err != nil || len(written) != 1 || (written[0].Err == nil) != test.ok {
			t.Errorf("%s: %+v, %v", test.name, written, err)
		}
	}
	// One outcome for each record.
	if _, err := jobtest.Update(t.Context(), sync(job.Outcome{}), jobtest.With{}, bson.M{"_id": 1}, bson.M{"_id": 2}); !jobtest.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}
