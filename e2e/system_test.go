package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const userSync = "user-sync"

// system has what the processes of one test share: a Redis database, a MongoDB database and the API's port. No other test
// uses them.
type system struct {
	redis     redisconn.Options
	rdb       redis.UniversalClient
	inspector *asynq.Inspector
	mongoURI  string
	users     *mongo.Collection
	api       string
	env       []string
}

func setup(t *testing.T) *system {
	t.Helper()
	o := redistest.Options(t)
	return setupOn(t, o, append(redisEnv(o.Addr), "REDIS_PASSWORD="+o.Password, "REDIS_DB="+strconv.Itoa(o.DB))...)
}

// faultyMongo returns a proxy that makes commands to the test's MongoDB fail, and the connection string that leads through it.
func (s *system) faultyMongo(t *testing.T) (proxy *faultproxy.Proxy, uri string) {
	t.Helper()
	proxy, err := faultproxy.New(s.mongoURI)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	if uri, err = proxy.URI(s.mongoURI); err != nil {
		t.Fatal(err)
	}
	return proxy, uri
}

// setupOn is setup with a Redis that the test has started. The environment says the same as the options.
func setupOn(t *testing.T, o redisconn.Options, env ...string) *system {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the tests with `make test`")
	}
	s := &system{redis: o, rdb: redisconn.New(o, redisconn.Retrying, slog.New(slog.DiscardHandler)), mongoURI: uri}
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.inspector = asynq.NewInspectorFromRedisClient(s.rdb)
	client, err := mongodb.Connect(uri, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	db := client.Database("e2e_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	s.users = db.Collection("users")
	port := testbed.FreePort(t)
	s.api = "http://127.0.0.1:" + port
	s.env = slices.Concat(env, []string{
		"MONGODB_URI=" + uri, "MONGODB_DATABASE=" + db.Name(), "PORT=" + port,
		// Some servers need small commands.
		"SYNC_BULK_SIZE=" + os.Getenv("SYNC_BULK_SIZE"), "SYNC_WRITERS=" + os.Getenv("SYNC_WRITERS"),
		"SYNC_RANGE_SIZE=" + os.Getenv("SYNC_RANGE_SIZE"),
	})
	return s
}

// redisEnv has the settings of Redis. The last value of a variable counts.
func redisEnv(addr string) []string {
	host, port, _ := net.SplitHostPort(addr)
	return []string{"REDIS_HOST=" + host, "REDIS_PORT=" + port}
}

// mongoEnv has the settings of MongoDB, behind a proxy.
func (s *system) mongoEnv(t *testing.T, p *testbed.Proxy) string {
	t.Helper()
	u := s.parseMongoURI(t)
	u.Host = p.Addr
	query := u.Query()
	query.Set("directConnection", "true") // servers tell their own addresses
	u.RawQuery = query.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	return "MONGODB_URI=" + u.String()
}

func (s *system) parseMongoURI(t *testing.T) *url.URL {
	t.Helper()
	u, err := url.Parse(s.mongoURI)
	if err != nil {
		t.Fatal("MONGODB_URI cannot be put behind a proxy")
	}
	return u
}

// mongoProxy stands before the test's MongoDB.
func (s *system) mongoProxy(t *testing.T) *testbed.Proxy {
	t.Helper()
	return testbed.NewProxy(t, s.parseMongoURI(t).Host)
}

// start runs a binary as part of the system; env comes on top of the system's own.
func (s *system) start(t *testing.T, name string, env ...string) *process {
	t.Helper()
	return start(t, name, append(s.env[:len(s.env):len(s.env)], env...)...)
}

// startReady runs a binary and waits until it is ready.
func (s *system) startReady(t *testing.T, name string, env ...string) *process {
	t.Helper()
	p := s.start(t, name, env...)
	p.waitForLog(t, procs.Ready(name).Msg, nil)
	return p
}

// request sends JSON, "" for none, and returns the status and the body of the answer.
func (s *system) request(t *testing.T, method, path, body string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	return send(t, request)
}

// send returns the status and the body of the answer to a request.
func send(t *testing.T, request *http.Request) (int, []byte) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, data
}

// get decodes the answer to a GET into v, and returns its status.
func (s *system) get(t *testing.T, path string, v any) int {
	t.Helper()
	status, data := s.request(t, http.MethodGet, path, "")
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("GET %s: %s: %v", path, data, err)
	}
	return status
}

// health has the fields of GET /health that the tests check.
type health struct {
	Status          string
	Database, Redis struct{ Status string }
	Jobs            struct {
		Initialized         bool
		Workers, Schedulers int
		Missing             []string
	}
}

func (s *system) health(t *testing.T) (h health, status int) {
	t.Helper()
	status = s.get(t, "/health", &h)
	return h, status
}

// trigger triggers a user sync over HTTP, and triggerJob any job. Both return the ID of the new run.
func (s *system) trigger(t *testing.T, body string) tasks.RunID {
	t.Helper()
	return s.triggerJob(t, userSync, body)
}

func (s *system) triggerJob(t *testing.T, job, body string) tasks.RunID {
	t.Helper()
	status, data := s.request(t, http.MethodPost, "/jobs/trigger/"+job, body)
	var answer struct {
		Success bool
		Data    struct {
			JobID     string
			Coalesced bool
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil || status != http.StatusOK || !answer.Success || answer.Data.Coalesced {
		t.Fatalf("triggering a run of %s with %s: %d %s", job, body, status, data)
	}
	return parseID(t, answer.Data.JobID)
}

// enqueue triggers a user sync without an API.
func (s *system) enqueue(t *testing.T, payload *tasks.SyncPayload) tasks.RunID {
	t.Helper()
	registry := codex.Registry()
	def, _ := registry.Lookup(userSync)
	accepted, err := jobs.New(s.rdb, registry, slog.New(slog.DiscardHandler)).Trigger(t.Context(), def, payload)
	if err != nil || accepted.Coalesced {
		t.Fatalf("triggering a run: %+v, %v", accepted, err)
	}
	return accepted.ID
}

func parseID(t *testing.T, s string) tasks.RunID {
	t.Helper()
	id, err := tasks.ParseRunID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// result waits until the run has completed, and returns its result.
func (s *system) result(t *testing.T, id tasks.RunID) tasks.SyncResult {
	t.Helper()
	return s.resultWithin(t, waitLimit, id)
}

func (s *system) resultWithin(t *testing.T, limit time.Duration, id tasks.RunID) tasks.SyncResult {
	t.Helper()
	var result tasks.SyncResult
	testbed.Within(t, limit, "the completion of "+id.String(), func() bool {
		info, err := s.inspector.GetTaskInfo(id.Job, id.String())
		if err != nil {
			t.Fatal(err)
		}
		if info.State != asynq.TaskStateCompleted {
			return false
		}
		if err := json.Unmarshal(info.Result, &result); err != nil {
			t.Fatalf("the result %s: %v", info.Result, err)
		}
		return true
	})
	return result
}

// wantComplete checks the result of a run that has visited n users and updated them all.
func wantComplete(t *testing.T, got tasks.SyncResult, n int) {
	t.Helper()
	want := tasks.SyncResult{
		Success: true, UsersProcessed: int64(n), UsersUpdated: int64(n),
		Duration: got.Duration, Timestamp: got.Timestamp,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("result %+v, want %d users processed and updated", got, n)
	}
	if _, err := time.Parse(tasks.TimestampLayout, got.Timestamp); err != nil || !strings.HasSuffix(got.Timestamp, "Z") {
		t.Errorf("result's timestamp %q is not ISO 8601 in UTC", got.Timestamp)
	}
	if got.Duration < 0 || got.Duration > waitLimit.Milliseconds() {
		t.Errorf("result's duration is %d ms", got.Duration)
	}
}

// waitUntilIdle waits until no run of any job type is active or waits.
func (s *system) waitUntilIdle(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, "the end of all runs", func() bool {
		queues, err := s.inspector.Queues()
		if err != nil {
			t.Fatal(err)
		}
		for _, queue := range queues {
			info, err := s.inspector.GetQueueInfo(queue)
			if err != nil {
				t.Fatal(err)
			}
			if info.Active+info.Pending+info.Retry > 0 {
				return false
			}
		}
		return true
	})
}

// Fields that a sync sets.
const (
	lastSynced = "lastSynced"
	updatedAt  = "updatedAt"
)

// messyUsers makes users like those of a database that several programs have written to.
func messyUsers(n int) []bson.D {
	long := strings.Repeat("a line of text ", 40)
	now := time.Now().Truncate(time.Millisecond)
	users := make([]bson.D, n)
	for i := range users {
		var id any
		switch i % 10 {
		case 3:
			id = fmt.Sprintf("import/%04d", n-i)
		case 6:
			id = int32(i)
		case 9:
			id = int64(i) << 33
		default:
			id = bson.NewObjectID()
		}
		user := bson.D{{Key: "_id", Value: id}, {Key: "username", Value: fmt.Sprintf("user.%d", i)}}
		switch i % 7 {
		case 1:
			user[1].Value = nil
		case 2:
			user = user[:1]
		case 5:
			user[1].Value = "Zoë \"" + strconv.Itoa(i) + "\" \n O'Neil"
		}
		switch i % 9 { // 0: none
		case 1:
			user = append(user, bson.E{Key: lastSynced, Value: nil})
		case 2:
			user = append(user, bson.E{Key: lastSynced, Value: now.Format(time.RFC3339)})
		case 3:
			user = append(user, bson.E{Key: lastSynced, Value: now.UnixMilli()})
		case 4:
			user = append(user, bson.E{Key: lastSynced, Value: time.Unix(0, 0)})
		case 5:
			user = append(user, bson.E{Key: lastSynced, Value: now.AddDate(30, 0, 0)})
		case 6:
			user = append(user, bson.E{Key: lastSynced, Value: ""})
		case 7:
			user = append(user, bson.E{Key: lastSynced, Value: 17.25})
		case 8:
			user = append(user, bson.E{Key: lastSynced, Value: now.Add(-time.Hour)})
		}
		switch i % 4 { // 0: none
		case 1:
			user = append(user, bson.E{Key: updatedAt, Value: now.Add(-time.Duration(i) * time.Hour)})
		case 2:
			user = append(user, bson.E{Key: updatedAt, Value: "unknown"})
		case 3:
			user = append(user, bson.E{Key: "profile", Value: bson.D{
				{Key: "bio", Value: long[:i%600]}, {Key: "seen", Value: bson.A{int32(1), "two", nil, now}},
			}})
		}
		user = append(user, bson.E{Key: "createdAt", Value: now.AddDate(-1, 0, 0)}, bson.E{Key: "tags", Value: bson.A{"a", int64(i)}})
		users[i] = user
	}
	return users
}

// insert adds the users.
func (s *system) insert(t *testing.T, users []bson.D) {
	t.Helper()
	for len(users) > 0 {
		n := min(len(users), 100)
		if _, err := s.users.InsertMany(t.Context(), users[:n]); err != nil {
			t.Fatal(err)
		}
		users = users[n:]
	}
}

// snapshot returns all users as the server has them, by _id.
func (s *system) snapshot(t *testing.T) map[string]bson.Raw {
	t.Helper()
	cursor, err := s.users.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []bson.Raw
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	users := make(map[string]bson.Raw, len(all))
	for _, user := range all {
		users[user.Lookup("_id").String()] = user
	}
	return users
}

// wantStamped checks that every user carries the reference, was updated after since, and is otherwise as before.
func (s *system) wantStamped(t *testing.T, before map[string]bson.Raw, reference, since time.Time) {
	t.Helper()
	after := s.snapshot(t)
	if len(after) != len(before) {
		t.Errorf("%d users, want %d", len(after), len(before))
	}
	wrong := 0
	for id, user := range after {
		stamp, isDate := user.Lookup(lastSynced).TimeOK()
		if !isDate || !stamp.Equal(reference) {
			wrong++
			t.Errorf("%s: lastSynced is %v, want %s", id, user.Lookup(lastSynced), reference)
		}
		updated, isDate := user.Lookup(updatedAt).TimeOK()
		if !isDate || updated.Before(since) || updated.After(time.Now().Add(time.Second)) {
			wrong++
			t.Errorf("%s: updatedAt is %v, want a date after %s", id, user.Lookup(updatedAt), since)
		}
		if !bytes.Equal(otherFields(t, user), otherFields(t, before[id])) {
			wrong++
			t.Errorf("%s has changed: %s, was %s", id, user, before[id])
		}
		if wrong > 5 {
			t.Fatal("and so on")
		}
	}
}

// otherFields returns the bytes of the fields that a sync must not touch, in their order.
func otherFields(t *testing.T, user bson.Raw) []byte {
	t.Helper()
	elements, err := user.Elements()
	if err != nil {
		t.Fatal(err)
	}
	var others []byte
	for _, e := range elements {
		if e.Key() != lastSynced && e.Key() != updatedAt {
			others = append(others, e...)
		}
	}
	return others
}
