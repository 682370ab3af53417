package mongodb

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reference is a run's reference time. It is far in the future, so that Selection.Latest does not depend on the real time.
var reference = time.Date(2100, 3, 1, 12, 20, 0, 0, time.UTC)

// latest is how long after reference the latest stamp is that is believed.
const latest = freshness + syncrun.MaxClockError

const freshness = 20 * time.Minute

// The fields that a sync writes, unless a test names others.
const (
	lastSynced = DefaultSyncedField
	updatedAt  = DefaultUpdatedField
)

// stamp returns a condition on the stamp, or what sets it.
func stamp(value any) bson.D { return stampField(lastSynced).is(value) }

var incremental = syncrun.Selection{Reference: reference, Freshness: freshness}

// testBundle is one test's database, with a store on its collection "users".
type testBundle struct {
	uri    string
	client *Client
	users  *mongo.Collection
	store  *Store
}

func serverURI(t testing.TB) string {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the tests with `make test`, which starts a throwaway server for them")
	}
	return uri
}

// bulkSize returns the bulk size that the environment asks for, or 0. The server of `make test` needs a small one.
func bulkSize(t *testing.T) int {
	t.Helper()
	s := os.Getenv("SYNC_BULK_SIZE")
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("SYNC_BULK_SIZE: %v", err)
	}
	return n
}

// allTypes reports whether the server takes values of every BSON type. The embedded server of `make test` drops the connection
// when it sees some of them.
func allTypes(t *testing.T) bool {
	t.Helper()
	if os.Getenv("DEVSTACK_MONGODB") == "ferretdb" {
		t.Log("The embedded server takes no Decimal128, MinKey, MaxKey, NaN, infinity, nested arrays, empty field names and none of the deprecated types: left out here")
		return false
	}
	return true
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return setupAt(t, serverURI(t), Config{Fields: []string{}}) // no fields but the name, by which the tests know their records
}

// setupAt gives the test a database of its own at uri.
func setupAt(t *testing.T, uri string, cfg Config, adjust ...func(*options.ClientOptions)) *testBundle {
	t.Helper()
	client, err := Connect(uri, slog.New(slog.DiscardHandler), adjust...)
	if err != nil {
		t.Fatal(err)
	}
	db := client.Database("test_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg.Collection = "users"
	if cfg.NameField == "" {
		cfg.NameField = "username"
	}
	if cfg.BulkSize == 0 {
		cfg.BulkSize = bulkSize(t)
	}
	return &testBundle{uri: uri, client: client, users: db.Collection("users"), store: NewStore(client, db.Name(), cfg)}
}

// setupFaulty is setup with a proxy before the server, and a client that does not wait long.
func setupFaulty(t *testing.T, cfg Config) (*testBundle, *faultproxy.Proxy) {
	t.Helper()
	proxy, err := faultproxy.New(serverURI(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	uri, err := proxy.URI(serverURI(t))
	if err != nil {
		t.Fatal(err)
	}
	b := setupAt(t, uri, cfg, quick)
	testbed.Eventually(t, "a connection, which can take a busy machine longer than the client waits", func() bool {
		return b.client.Ping(t.Context()) == nil
	})
	t.Cleanup(func() { // before the database is dropped
		if err := proxy.Heal(); err != nil {
			t.Error(err)
		}
		testbed.Eventually(t, "a connection, which the client only looks for now and then", func() bool {
			return b.client.Ping(context.WithoutCancel(t.Context())) == nil
		})
	})
	return b, proxy
}

func quick(o *options.ClientOptions) {
	o.SetServerSelectionTimeout(time.Second).SetConnectTimeout(time.Second).SetHeartbeatInterval(500 * time.Millisecond)
}

func (b *testBundle) insert(t *testing.T, docs ...bson.D) {
	t.Helper()
	for len(docs) > 0 {
		n := min(len(docs), 100)
		if _, err := b.users.InsertMany(t.Context(), docs[:n]); err != nil {
			t.Fatal(err)
		}
		docs = docs[n:]
	}
}

// raw returns the document with the given _id, as the server has it.
func (b *testBundle) raw(t *testing.T, id any) bson.Raw {
	t.Helper()
	doc, err := b.users.FindOne(t.Context(), bson.D{{Key: "_id", Value: id}}).Raw()
	if err != nil {
		t.Fatalf("reading %v: %v", id, err)
	}
	return doc
}

// scan reads all records behind a key.
func (b *testBundle) scan(t *testing.T, sel syncrun.Selection, after []byte) []syncrun.Record {
	t.Helper()
	return b.scanRange(t, sel, syncrun.Range{After: after})
}

func (b *testBundle) scanRange(t *testing.T, sel syncrun.Selection, within syncrun.Range) []syncrun.Record {
	t.Helper()
	cursor, err := b.store.Scan(t.Context(), sel, within)
	if err != nil {
		t.Fatal(err)
	}
	defer cursor.Close()
	var records []syncrun.Record
	for {
		record, ok, err := next(t, cursor)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return records
		}
		records = append(records, record)
	}
}

// next reads one record.
func next(t *testing.T, c syncrun.Cursor) (syncrun.Record, bool, error) {
	t.Helper()
	var records [1]syncrun.Record
	n, err := c.Read(t.Context(), records[:])
	return records[0], n == 1, err
}
