package history_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const keep = 90 * 24 * time.Hour

// reference is when the newest entries of these tests ended.
var reference = time.Date(2099, 3, 1, 12, 20, 0, 0, time.UTC)

// testBundle has a database with a store, and a proxy before its server.
type testBundle struct {
	proxy      *faultproxy.Proxy
	client     *mongodb.Client
	collection *mongo.Collection
	store      *history.Store
}

func setup(t testing.TB) *testBundle {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the tests with `make test`, which starts a throwaway server for them")
	}
	proxy, err := faultproxy.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	if uri, err = proxy.URI(uri); err != nil {
		t.Fatal(err)
	}
	client, err := mongodb.Connect(uri, slog.New(slog.DiscardHandler), func(o *options.ClientOptions) {
		o.SetServerSelectionTimeout(time.Second).SetConnectTimeout(time.Second).SetHeartbeatInterval(500 * time.Millisecond)
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBundle{proxy: proxy, client: client}
	b.store = b.keeping(keep)
	if b.collection, err = client.Collection(t.Context(), b.store.Database, b.store.Collection); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Heal(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := b.collection.Database().Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// keeping returns a store on the same collection that keeps entries for another time.
func (b *testBundle) keeping(keep time.Duration) *history.Store {
	bulk, _ := strconv.Atoi(os.Getenv("SYNC_BULK_SIZE")) // the server of `make test` needs a small one
	o := history.Options{Client: b.client, Database: "test_" + bson.NewObjectID().Hex(), Collection: "job_runs", Keep: keep, BulkSize: bulk}
	if b.store != nil {
		o.Database = b.store.Database
	}
	return history.NewStore(o)
}

// put stores entries, of which none may be lost.
func (b *testBundle) put(t testing.TB, entries ...jobs.Entry) {
	t.Helper()
	lost, err := b.store.Put(t.Context(), entries)
	if err != nil || len(lost) > 0 {
		t.Fatalf("storing %d entries: lost %v, %v", len(entries), lost, err)
	}
}

// list returns the IDs of the first page.
func (b *testBundle) list(t testing.TB, f history.Filter) (ids []string) {
	t.Helper()
	if f.Limit == 0 {
		f.Limit = 100
	}
	entries, _, err := b.store.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids
}

// run returns the entry of a run that has completed some minutes before reference.
func run(job string, minutes int) jobs.Entry {
	at := reference.Add(-time.Duration(minutes) * time.Minute)
	return jobs.Entry{
		ID: tasks.TickID(job, at.Add(-time.Second)).String(), Kind: jobs.EntryRun, Job: job, At: at, By: jobs.Trigger{Kind: jobs.TriggeredByTick},
		State: jobs.StateCompleted, Data: json.RawMessage(`{"syncType":"incremental"}`), Started: at.Add(-time.Second), Attempt: 1, Attempts: 3,
		EndedAttempts: []jobs.EndedAttempt{{Number: 1, Started: at.Add(-time.Second), Ended: at, Worker: "host-1-abc", Outcome: jobs.OutcomeCompleted}},
		Counts:        &jobs.RecordCounts{Processed: 1000, Updated: 1000},
		Result:        json.RawMessage(`{"success":true,"usersProcessed":1000,"usersUpdated":1000,"errors":0,"duration":998,"timestamp":"2099-03-01T12:20:00.000Z"}`),
	}
}

// queues are lists of entries in Redis.
type queues struct {
	rdb  *redis.Client
	jobs *jobs.Jobs
}

func setupQueues(t testing.TB) *queues {
	t.Helper()
	rdb := redistest.Client(t, redistest.Options(t))
	return &queues{rdb: rdb, jobs: jobs.New(rdb, codex.Registry(), slog.New(slog.DiscardHandler))}
}

// add adds entries to the lists of their job types.
func (q *queues) add(t testing.TB, entries ...jobs.Entry) {
	t.Helper()
	pipe := q.rdb.Pipeline()
	for _, e := range entries {
		text, err := json.Marshal(map[string]any{"entry": e})
		if err != nil {
			t.Fatal(err)
		}
		pipe.RPush(t.Context(), listKey(e.Job), text)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func listKey(job string) string { return fmt.Sprintf("codex-jobs:{%s}:history", job) }

// empty reports whether there are no entries left in the list of a job type.
func (q *queues) empty(t testing.TB, job string) bool {
	t.Helper()
	n, err := q.rdb.LLen(t.Context(), listKey(job)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n == 0
}

// move runs a mover until the test ends or stop is called.
func move(t testing.TB, q *queues, s *history.Store) (log *testbed.Log, ended chan<- struct{}, stop func()) {
	t.Helper()
	log, logger := testbed.NewLog(t)
	signals := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		history.NewMover(q.jobs, s, logger).Run(ctx, signals)
	}()
	stop = func() {
		cancel()
		testbed.Receive(t, "the end of the mover", done)
	}
	t.Cleanup(stop)
	return log, signals, stop
}
