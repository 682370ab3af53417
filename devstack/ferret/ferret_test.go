package ferret

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

type testBundle struct {
	server *Server
	client *mongo.Client
	log    *lockedBuffer
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	b := &testBundle{log: &lockedBuffer{}}
	var err error
	if b.server, err = Start(t.Context(), t.TempDir(), slog.New(slog.NewTextHandler(b.log, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Stop(5 * time.Second) })
	if b.client, err = mongo.Connect(options.Client().ApplyURI(b.server.URI())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.client.Disconnect(context.Background()) })
	return b
}

// indexes returns the names of the package's indexes in a database.
func (b *testBundle) indexes(t *testing.T, database string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.server.dir, database+sqliteSuffix)+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE ? || '%'`, indexPrefix)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// untilIndexed waits until a database has n of the package's indexes.
func (b *testBundle) untilIndexed(t *testing.T, database string, n int) {
	t.Helper()
	var names []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if names = b.indexes(t, database); len(names) == n {
			return
		}
	}
	t.Fatalf("database %s has indexes %q, want %d", database, names, n)
}

// plan returns how FerretDB looks a filter up.
func plan(t *testing.T, coll *mongo.Collection, filter bson.D) string {
	t.Helper()
	answer, err := coll.Database().RunCommand(t.Context(), bson.D{
		{Key: "explain", Value: bson.D{{Key: "find", Value: coll.Name()}, {Key: "filter", Value: filter}}},
		{Key: "verbosity", Value: "queryPlanner"},
	}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	return answer.Lookup("queryPlanner").String()
}

func insert(t *testing.T, coll *mongo.Collection, ids ...any) {
	t.Helper()
	for _, id := range ids {
		if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLookUpsByIDUseTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := b.client.Database("shop").Collection("users")
	object := bson.NewObjectID()
	insert(t, users, object, "text")
	insert(t, b.client.Database("shop").Collection("odd-name.of 'ours'"), "text")
	b.untilIndexed(t, "shop", 2)

	for _, id := range []any{object, "text"} {
		filter := bson.D{{Key: "_id", Value: id}}
		var found struct {
			ID any `bson:"_id"`
		}
		if err := users.FindOne(t.Context(), filter).Decode(&found); err != nil || found.ID != id {
			t.Errorf("looking up _id %v: found %v, error %v", id, found.ID, err)
		}
		// Only now: a connection learns of a new index when it looks something up, not when it explains.
		if plan := plan(t, users, filter); !strings.Contains(plan, indexPrefix) {
			t.Errorf("looking up _id %v does not use the index: %s", id, plan)
		}
	}
	if plan := plan(t, users, bson.D{{Key: "name", Value: "x"}}); strings.Contains(plan, indexPrefix) {
		t.Errorf("the plan names the index for any filter, so it proves nothing: %s", plan)
	}
}

func TestNewCollectionsOfOldNamesAreIndexed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	coll := b.client.Database("shop").Collection("users")
	insert(t, coll, "a")
	b.untilIndexed(t, "shop", 1)
	if err := coll.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.untilIndexed(t, "shop", 0)
	insert(t, coll, "a")
	b.untilIndexed(t, "shop", 1)
}

// Tests make databases and drop them within milliseconds, while the indexes are being made.
func TestDroppedDatabasesAreNoTrouble(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var clients sync.WaitGroup
	for client := range 2 {
		clients.Go(func() {
			for i := range 60 {
				db := b.client.Database(fmt.Sprintf("test_%d_%d", client, i))
				if _, err := db.Collection("users").InsertOne(t.Context(), bson.D{{Key: "_id", Value: i}}); err != nil {
					t.Errorf("inserting into %s: %v", db.Name(), err)
				}
				if err := db.Drop(t.Context()); err != nil {
					t.Errorf("dropping %s: %v", db.Name(), err)
				}
			}
		})
	}
	clients.Wait()
	insert(t, b.client.Database("after").Collection("users"), "a")
	b.untilIndexed(t, "after", 1)
	if databases := b.server.databases(); len(databases) != 1 {
		t.Errorf("databases %q are left, want only the one that was not dropped", databases)
	}
	if log := b.log.String(); log != "" {
		t.Errorf("dropped databases were reported:\n%s", log)
	}
}

func TestDroppedDatabaseIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.server.index(t.Context(), "dropped", []collection{{"dropped", "users", "uuid"}})
	if databases := b.server.databases(); len(databases) != 0 {
		t.Errorf("databases %q are there, want none", databases)
	}
	if log := b.log.String(); log != "" {
		t.Errorf("it was reported:\n%s", log)
	}
}

func TestFailedIndexIsReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	insert(t, b.client.Database("shop").Collection("users"), "a")
	collections, err := b.server.collections(t.Context(), "shop")
	if err != nil || len(collections) != 1 {
		t.Fatalf("collections of the database: %v, error %v", collections, err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.server.dir, "shop"+sqliteSuffix)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `ALTER TABLE _ferretdb_collections RENAME TO gone`); err != nil {
		t.Fatal(err)
	}
	b.server.index(t.Context(), "shop", collections)
	if log := b.log.String(); !strings.Contains(log, "indexing _id failed") || !strings.Contains(log, "users") {
		t.Errorf("log is %q, want it to say which index failed", log)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.server.Stop(5 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := b.client.Ping(ctx, nil); err == nil {
		t.Error("a stopped server still answers")
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
