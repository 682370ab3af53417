package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	workerprogram "github.com/codex-api/codex-jobs/internal/programs/worker"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// The answers of the system that this one replaces, as its documentation shows them. They are the contract with its
// clients.
const (
	healthExample = `{
  "status": "OK",
  "timestamp": "2025-10-09T12:00:00.000Z",
  "uptime": 3600,
  "database": {
    "status": "connected",
    "responseTime": 5
  },
  "jobs": {
    "initialized": true
  }
}`
	statusExample = `{
  "success": true,
  "data": {
    "repeatableJobs": [
      {
        "name": "__default__",
        "key": "user-sync:...",
        "every": 1200000,
        "next": 1728475200000
      }
    ],
    "counts": {
      "active": 1,
      "waiting": 0,
      "completed": 45,
      "failed": 2
    },
    "activeJobs": [
      {
        "id": "123",
        "data": { "syncType": "incremental" },
        "progress": 75
      }
    ]
  }
}`
	triggerRequestExample = `{
  "syncType": "incremental"
}`
	triggerExample = `{
  "success": true,
  "message": "User sync (incremental) triggered successfully",
  "timestamp": "2025-10-09T12:00:00.000Z"
}`
	pauseExample = `{
  "success": true,
  "message": "User sync jobs paused"
}`
	resumeExample = `{
  "success": true,
  "message": "User sync jobs resumed"
}`
	cleanupRequestExample = `{
  "gracePeriodHours": 24
}`
	cleanupExample = `{
  "success": true,
  "message": "Old jobs cleaned up (grace period: 24h)"
}`
)

// contract says how far an answer must agree with its example.
type contract struct {
	example string
	// same are the paths whose values are those of the example; "*" is every one.
	same []string
	// more are the paths that the answer has in addition to the example.
	more []string
}

// hold compares an answer with its example: every key of the example with a value of the same JSON type, and no other
// keys than those that are known.
func (c contract) hold(t *testing.T, a answer) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Errorf("the status is %d", a.status)
	}
	if got := a.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("the Content-Type is %q", got)
	}
	var want any
	if err := json.Unmarshal([]byte(c.example), &want); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	c.compare(t, "", want, any(a.json(t)), seen)
	for _, path := range append(c.same, c.more...) {
		if path != "*" && !seen[path] {
			t.Errorf("the answer has no %s: %s", path, a.text)
		}
	}
}

func (c contract) compare(t *testing.T, path string, want, got any, seen map[string]bool) {
	t.Helper()
	seen[path] = true
	if jsonType(want) != jsonType(got) {
		t.Errorf("%s is %s %v, in the example it is %s %v", path, jsonType(got), got, jsonType(want), want)
		return
	}
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for key, value := range want {
			if _, there := got[key]; !there {
				t.Errorf("%s.%s is missing", path, key)
				continue
			}
			c.compare(t, path+"."+key, value, got[key], seen)
		}
		for key := range got {
			if _, there := want[key]; there {
				continue
			}
			seen[path+"."+key] = true
			if !slices.Contains(c.more, path+"."+key) {
				t.Errorf("%s.%s is not in the example", path, key)
			}
		}
	case []any:
		got, _ := got.([]any)
		if len(got) != len(want) {
			t.Errorf("%s has %d elements, in the example it has %d", path, len(got), len(want))
			return
		}
		for i := range want {
			c.compare(t, fmt.Sprintf("%s[%d]", path, i), want[i], got[i], seen)
		}
	default:
		if (slices.Contains(c.same, path) || slices.Contains(c.same, "*")) && got != want {
			t.Errorf("%s is %v, in the example it is %v", path, got, want)
		}
	}
}

func jsonType(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	default:
		return "object"
	}
}

var isoTimestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// recent checks a timestamp: the form of the examples, and now.
func recent(t *testing.T, timestamp any) {
	t.Helper()
	s, _ := timestamp.(string)
	at, err := time.Parse(time.RFC3339Nano, s)
	if !isoTimestamp.MatchString(s) || err != nil || time.Since(at).Abs() > 5*time.Second {
		t.Errorf("the timestamp is %v at %s", timestamp, time.Now().UTC())
	}
}

func TestContractHealth(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.startWorker(t)
	b.startScheduler(t)
	testbed.Eventually(t, "the system to be initialized", func() bool {
		jobs, _ := b.get(t, "/health").json(t)["jobs"].(map[string]any)
		return jobs["initialized"] == true
	})
	a := b.get(t, "/health")
	contract{
		example: healthExample,
		same:    []string{".status", ".database.status", ".jobs.initialized"},
		more:    []string{".redis", ".jobs.workers", ".jobs.schedulers"},
	}.hold(t, a)
	body := a.json(t)
	recent(t, body["timestamp"])
	var more struct {
		Uptime int64
		Redis  struct {
			Status       string
			ResponseTime int64
		}
		Jobs struct{ Workers, Schedulers int }
	}
	b.ok(t, a, &more) // which fails if the numbers are not whole
	if more.Redis.Status != "connected" || more.Redis.ResponseTime > 1000 || more.Jobs.Workers != 1 || more.Jobs.Schedulers != 1 || more.Uptime > 60 {
		t.Errorf("got %s", a.text)
	}
}

func TestContractStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	b.startScheduler(t)
	for range 3 {
		b.trigger(t, "user-sync", `{"syncType": "full"}`)
		next(t, began).finish(nil)
	}
	id := b.trigger(t, "user-sync", triggerRequestExample).Data.JobID
	run := next(t, began)
	if err := run.Save(t.Context(), nil, 75); err != nil {
		t.Fatal(err)
	}
	a := b.get(t, "/jobs/status")
	contract{
		example: statusExample,
		same: []string{
			".success", ".data.repeatableJobs[0].name", ".data.repeatableJobs[0].every", ".data.counts.active", ".data.counts.waiting",
			".data.activeJobs[0].data.syncType", ".data.activeJobs[0].progress",
		},
		more: []string{".data.paused", ".data.counts.delayed"},
	}.hold(t, a)

	s := b.status(t, "")
	if s.Counts.Completed != 3 || s.Counts.Failed != 0 || s.Counts.Delayed != 0 || s.Paused {
		t.Errorf("got %s", a.text)
	}
	if got := s.ActiveJobs[0]; got.ID != id || string(got.Data) != `{"syncType":"incremental"}` {
		t.Errorf("the active job is %+v, triggered was %s", got, id)
	}
	repeatable := s.RepeatableJobs[0]
	if !strings.HasPrefix(repeatable.Key, "user-sync:") {
		t.Errorf("the key is %q", repeatable.Key)
	}
	until := time.Until(time.UnixMilli(repeatable.Next))
	if repeatable.Next%1200000 != 0 || until < -5*time.Second || until > 20*time.Minute { // the entry may be some seconds old
		t.Errorf("the next tick is in %s", until)
	}
	run.finish(nil)
	testbed.Eventually(t, "the run to be completed", func() bool { return b.status(t, "").Counts.Completed == 4 })
	if s := b.status(t, ""); s.ActiveJobs == nil || len(s.ActiveJobs) != 0 {
		t.Errorf("with no active run activeJobs is %v, not an empty array", s.ActiveJobs)
	}
}

// With nothing to show the arrays are there all the same.
func TestContractStatusOfAnEmptySystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const want = `{"success":true,"data":{"repeatableJobs":[],` +
		`"counts":{"active":0,"waiting":0,"completed":0,"failed":0,"delayed":0},"paused":false,"activeJobs":[]}}`
	for _, query := range []string{"", "?job=user-sync", "?job=issue-sync", "?job=all"} {
		var got, expected any
		b.ok(t, b.get(t, "/jobs/status"+query), &got)
		if err := json.Unmarshal([]byte(want), &expected); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(expected) {
			t.Errorf("%q: %v", query, got)
		}
	}
}

// The requests in the documentation of the replaced system, as its curl commands send them.
func TestContractRequests(t *testing.T) {
	t.Parallel()
	full := strings.ReplaceAll(triggerExample, "incremental", "full")
	const curlJSON = "application/json"
	const curlData = "application/x-www-form-urlencoded" // what curl -d sends without a header
	for _, test := range []struct {
		name, path, contentType, body string
		contract
	}{
		{"trigger an incremental sync", "/jobs/trigger/user-sync", curlJSON, `{"syncType": "incremental"}`,
			contract{triggerExample, []string{".success", ".message"}, []string{".data"}}},
		{"trigger as in the request's example", "/jobs/trigger/user-sync", curlJSON, triggerRequestExample,
			contract{triggerExample, []string{".success", ".message"}, []string{".data"}}},
		{"trigger without a body", "/jobs/trigger/user-sync", "", "",
			contract{triggerExample, []string{".success", ".message"}, []string{".data"}}},
		{"trigger with an empty object", "/jobs/trigger/user-sync", "application/json; charset=utf-8", "{}",
			contract{triggerExample, []string{".success", ".message"}, []string{".data"}}},
		{"trigger a full sync", "/jobs/trigger/user-sync", curlJSON, `{"syncType": "full"}`,
			contract{full, []string{".success", ".message"}, []string{".data"}}},
		{"pause", "/jobs/pause", "", "", contract{pauseExample, []string{"*"}, nil}},
		{"pause with empty data", "/jobs/pause", curlData, "", contract{pauseExample, []string{"*"}, nil}},
		{"resume", "/jobs/resume", "", "", contract{resumeExample, []string{"*"}, nil}},
		{"clean up", "/jobs/cleanup", "", "", contract{cleanupExample, []string{"*"}, []string{".data"}}},
		{"clean up as in the request's example", "/jobs/cleanup", curlJSON, cleanupRequestExample,
			contract{cleanupExample, []string{"*"}, []string{".data"}}},
		{"clean up after 48 hours", "/jobs/cleanup", curlJSON, `{"gracePeriodHours": 48}`,
			contract{strings.ReplaceAll(cleanupExample, "24h", "48h"), []string{"*"}, []string{".data"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			a := b.request(t, http.MethodPost, test.path, test.body, "Content-Type", test.contentType,
				"Accept", "*/*", "User-Agent", "curl/8.14.1")
			test.hold(t, a)
			body := a.json(t)
			if timestamp, there := body["timestamp"]; there {
				recent(t, timestamp)
			}
			data, _ := body["data"].(map[string]any)
			var keys []string
			for key := range data {
				keys = append(keys, key)
			}
			slices.Sort(keys)
			want := "[]"
			switch test.path {
			case "/jobs/trigger/user-sync":
				want = "[coalesced jobId]"
			case "/jobs/cleanup":
				want = "[completed failed]"
			}
			if fmt.Sprint(keys) != want {
				t.Errorf("data has %v, want %s", keys, want)
			}
		})
	}
}

// The whole way of a run: a trigger over HTTP, the real synchronisation, MongoDB, and the status over HTTP.
func TestSyncOverTheAPI(t *testing.T) {
	t.Parallel()
	client := connectMongoDB(t, mongoURI(t))
	db := client.Database("test_api_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	const users = 25
	var docs []bson.D
	for i := range users {
		docs = append(docs, bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "username", Value: fmt.Sprintf("user%d", i)}})
	}
	if _, err := db.Collection("users").InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}

	b := setup(t, func(o *api.Options) { o.Database = client })
	b.startWorkerOf(t, workerprogram.Handlers(client, config.Config{MongoDB: config.MongoDB{Database: db.Name()}, Sync: config.Sync{
		BatchSize: 10, Writers: envNumber(t, "SYNC_WRITERS", 4), BulkSize: envNumber(t, "SYNC_BULK_SIZE", 1000),
		RangeSize: 1000, RetryBudget: time.Minute, Freshness: map[string]time.Duration{"user-sync": 20 * time.Minute},
	}}, jobtype.All(codex.Types())))
	id := b.trigger(t, "user-sync", "").Data.JobID
	testbed.Eventually(t, "the sync to be completed", func() bool { return b.status(t, "").Counts.Completed == 1 })

	info, err := b.inspector.GetTaskInfo("user-sync", id)
	if err != nil {
		t.Fatal(err)
	}
	var result tasks.SyncResult
	if err := json.Unmarshal(info.Result, &result); err != nil {
		t.Fatalf("%v: %s", err, info.Result)
	}
	if !result.Success || result.UsersProcessed != users || result.UsersUpdated != users || result.Errors != 0 {
		t.Errorf("the result is %s", info.Result)
	}
	if err := describedAPI().json("/components/schemas/SyncResult", string(info.Result)); err != nil {
		t.Errorf("the result is not as described: %v", err)
	}
	if b.job(t, id).State != "completed" {
		t.Errorf("the job is %+v", b.job(t, id))
	}
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	stamped, err := db.Collection("users").CountDocuments(t.Context(), bson.D{{Key: "lastSynced", Value: run.Reference}})
	if err != nil || stamped != users {
		t.Errorf("%d of %d users are stamped with the run's reference, %v", stamped, users, err)
	}
	if a := b.get(t, "/health"); a.status != http.StatusOK || a.json(t)["status"] != "OK" {
		t.Errorf("the health is %d %s", a.status, a.text)
	}
}

func mongoURI(t *testing.T) string {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the tests with `make test`")
	}
	return uri
}

func connectMongoDB(t *testing.T, uri string) *mongodb.Client {
	t.Helper()
	client, err := mongodb.Connect(uri, slog.New(slog.DiscardHandler), func(o *options.ClientOptions) {
		o.SetHeartbeatInterval(500 * time.Millisecond) // so that its return is noticed soon
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// envNumber returns a number from the environment: the server of `make test` needs small ones.
func envNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
