package mongodb

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		field string
		ada   bson.D
	}{
		"a field": {"username", bson.D{{Key: "username", Value: "ada"}}},
		"a path":  {"profile.name", bson.D{{Key: "profile", Value: bson.D{{Key: "name", Value: "ada"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupAt(t, serverURI(t), Config{NameField: c.field})
			ids := []any{bson.NewObjectID(), "a name", int64(7), bson.D{{Key: "a", Value: "b"}}}
			for _, id := range append(ids, "another") {
				if _, err := b.users.InsertOne(t.Context(), append(bson.D{{Key: "_id", Value: id}}, c.ada...)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "no text"}, {Key: "username", Value: 5}}); err != nil {
				t.Fatal(err)
			}
			var keys [][]byte
			want := make(map[string]string)
			for _, id := range ids {
				k := rawKey(t, id)
				keys, want[string(k)] = append(keys, k), "ada"
			}
			keys = append(keys, rawKey(t, "no text"), rawKey(t, "not there"))
			if got, err := b.store.Names(t.Context(), keys); err != nil || !maps.Equal(got, want) {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			if _, err := b.store.Names(t.Context(), [][]byte{{0xff, 1}}); err == nil {
				t.Error("a key that is none is no error")
			}
		})
	}
}

// rawKey returns the key of an _id.
func rawKey(t *testing.T, id any) []byte {
	t.Helper()
	doc, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
	if err != nil {
		t.Fatal(err)
	}
	return newKey(bson.Raw(doc).Lookup("_id"))
}

func TestNamesOfAStoreWithout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	store := NewStore(b.users.Database(), Config{Collection: "users"})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := store.Names(ended, [][]byte{rawKey(t, "a")}); err != nil || len(got) > 0 {
		t.Errorf("without a NameField: %q, %v", got, err)
	}
	if _, err := b.store.Names(ended, [][]byte{rawKey(t, "a")}); err == nil {
		t.Error("an ended context is no error")
	}
}

func TestNamesOfAServerThatIsAway(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{ReadTimeout: time.Second})
	proxy.Refuse()
	if _, err := b.store.Names(t.Context(), [][]byte{rawKey(t, "a")}); !errors.Is(err, syncrun.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}
