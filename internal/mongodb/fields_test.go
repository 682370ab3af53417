package mongodb

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// TestFieldsOfARecord checks what the work sees of a record.
func TestFieldsOfARecord(t *testing.T) {
	t.Parallel()
	ada := bson.D{
		{Key: "_id", Value: "ada"}, {Key: "username", Value: "ada"}, {Key: "email", Value: "ada@example.com"},
		{Key: "profile", Value: bson.D{{Key: "name", Value: "Ada L."}, {Key: "born", Value: int32(1815)}}},
		{Key: "address", Value: bson.D{{Key: "city", Value: "London"}, {Key: "street", Value: "St James's Square"}}},
		{Key: lastSynced, Value: at(-time.Hour)}, {Key: updatedAt, Value: at(-time.Hour)}, {Key: "secret", Value: "x"},
	}
	for name, test := range map[string]struct {
		cfg      Config
		wantName string
		want     [][]string // the paths that are there
	}{
		"none":          {Config{}, "", nil},
		"an empty list": {Config{Fields: []string{}}, "ada", [][]string{{"_id"}, {"username"}, {lastSynced}}},
		"some": {
			Config{Fields: []string{"email", "address.city"}}, "ada",
			[][]string{{"_id"}, {"username"}, {lastSynced}, {"email"}, {"address", "city"}},
		},
		"a whole and one": {
			Config{Fields: []string{"address.city", "address"}}, "ada",
			[][]string{{"_id"}, {"username"}, {lastSynced}, {"address", "city"}, {"address", "street"}},
		},
		"those it reads anyway": {
			Config{Fields: []string{"_id.x", "_id", "username", "lastSynced", "lastSynced.x"}}, "ada",
			[][]string{{"_id"}, {"username"}, {lastSynced}},
		},
		"a name within others": {
			Config{NameField: "profile.name", Fields: []string{"profile", updatedAt}}, "Ada L.",
			[][]string{{"_id"}, {lastSynced}, {"profile", "name"}, {"profile", "born"}, {updatedAt}},
		},
		"a name that is no text": {
			Config{NameField: "profile", Fields: []string{"profile.name"}}, "",
			[][]string{{"_id"}, {lastSynced}, {"profile", "name"}, {"profile", "born"}},
		},
		"all": {
			Config{Fields: []string{AllFields}}, "ada",
			[][]string{
				{"_id"}, {"username"}, {"email"}, {"profile", "name"}, {"profile", "born"}, {"address", "city"}, {"address", "street"},
				{lastSynced}, {updatedAt}, {"secret"},
			},
		},
		"the _id as name": {Config{NameField: "_id", Fields: []string{"none"}}, "ada", [][]string{{"_id"}, {lastSynced}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupAt(t, serverURI(t), test.cfg)
			b.insert(t, ada)
			records := b.scan(t, incremental, nil)
			if len(records) != 1 || records[0].ID.String() != "ada" || records[0].Name != test.wantName {
				t.Fatalf("read %v", records)
			}
			if test.want == nil {
				if records[0].Data != nil {
					t.Errorf("the data is %v", records[0].Data)
				}
				return
			}
			data, ok := records[0].Data.(bson.Raw)
			if !ok {
				t.Fatalf("the data is %T", records[0].Data)
			}
			whole := b.raw(t, "ada")
			paths := [][]string{
				{"_id"}, {"username"}, {"email"}, {"profile", "name"}, {"profile", "born"}, {"address", "city"}, {"address", "street"},
				{lastSynced}, {updatedAt}, {"secret"},
			}
			for _, path := range paths {
				v, err := data.LookupErr(path...)
				want := slices.ContainsFunc(test.want, func(p []string) bool { return slices.Equal(p, path) })
				if want != (err == nil) || want && !v.Equal(whole.Lookup(path...)) {
					t.Errorf("%v is %v, want it: %v", path, v, want)
				}
			}
		})
	}
}

// A record knows whether the run itself has stamped it before.
func TestRecordOfTheRunItself(t *testing.T) {
	t.Parallel()
	b := setupAt(t, serverURI(t), Config{SyncedField: "syncedAt"})
	for name, stamp := range map[string]any{
		"own": reference, "none": nil, "before": reference.Add(-time.Millisecond), "after": reference.Add(time.Millisecond),
		"text": reference.Format(time.RFC3339), "number": reference.UnixMilli(), "list": bson.A{reference},
	} {
		b.insert(t, bson.D{{Key: "_id", Value: name}, {Key: "syncedAt", Value: stamp}, {Key: "lastSynced", Value: reference}})
	}
	sel := incremental
	sel.Full = true
	for _, record := range b.scan(t, sel, nil) {
		if name := record.ID.String(); record.Stamped != (name == "own") {
			t.Errorf("%s: %v", name, record.Stamped)
		}
	}
}

// TestDataDecodes decodes the data of a record as work does.
func TestDataDecodes(t *testing.T) {
	t.Parallel()
	b := setupAt(t, serverURI(t), Config{Fields: []string{"email", "address.city", "tags"}})
	b.insert(t, bson.D{
		{Key: "_id", Value: int64(7)}, {Key: "username", Value: "ada"}, {Key: "email", Value: "ada@example.com"},
		{Key: "address", Value: bson.D{{Key: "city", Value: "London"}, {Key: "street", Value: "x"}}},
		{Key: "tags", Value: bson.A{"a", "b"}}, {Key: "secret", Value: "x"}, {Key: lastSynced, Value: at(-time.Hour)},
	})
	type user struct {
		ID       int64  `bson:"_id"`
		Username string `bson:"username"`
		Email    string `bson:"email"`
		Address  struct {
			City   string `bson:"city"`
			Street string `bson:"street"`
		} `bson:"address"`
		Tags   []string  `bson:"tags"`
		Synced time.Time `bson:"lastSynced"`
		Secret string    `bson:"secret"`
	}
	want := user{ID: 7, Username: "ada", Email: "ada@example.com", Tags: []string{"a", "b"}, Synced: reference.Add(-time.Hour)}
	want.Address.City = "London"
	for _, r := range b.scan(t, incremental, nil) {
		var got user
		if err := bson.Unmarshal(r.Data.(bson.Raw), &got); err != nil {
			t.Fatal(err)
		}
		got.Synced = got.Synced.UTC()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("decoded %+v, want %+v", got, want)
		}
	}
}

// TestDataIsACopy checks that the data of a record shares no memory with the buffer of the batch that it came in. A run keeps
// records for long, and the buffer is as large as a thousand of them.
func TestDataIsACopy(t *testing.T) {
	t.Parallel()
	b := setupAt(t, serverURI(t), Config{Fields: []string{"text"}})
	const records = 200
	for i := range records {
		b.insert(t, bson.D{{Key: "_id", Value: i}, {Key: "text", Value: fmt.Sprint("the text of ", i)}})
	}
	walk, err := b.store.Scan(t.Context(), incremental, syncrun.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer walk.Close()
	var data, want []bson.Raw
	for {
		r, ok, err := next(t, walk)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		own, buffer := r.Data.(bson.Raw), walk.(*cursor).found.Current
		if &own[0] == &buffer[0] || cap(own) > 2*len(own) {
			t.Fatalf("%v: %d of %d bytes are in use, in the batch's buffer: %v", r.ID, len(own), cap(own), &own[0] == &buffer[0])
		}
		data, want = append(data, own), append(want, bytes.Clone(buffer))
		clear(buffer) // as if the driver used it again
	}
	if len(data) != records {
		t.Errorf("read %d records, want %d", len(data), records)
	}
	for i := range data {
		if !bytes.Equal(data[i], want[i]) {
			t.Errorf("record %d became %v", i, data[i])
		}
	}
}
