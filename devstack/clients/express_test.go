//go:build clients

// The example of an endpoint in TypeScript, with Node and the Standard Webhooks library from npm: alone, with requests that the
// Go library of Standard Webhooks signs, and behind a worker.

package clients_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// express is the running example.
type express struct {
	url      string
	old, new string // the secrets that it accepts
	profiles *profiles
}

// profiles is the service that the example asks. It has no profile of the user gone, fails for the user broken, and can be away.
type profiles struct {
	*httptest.Server
	away atomic.Bool
}

func startExpress(t *testing.T) *express {
	t.Helper()
	folder := install(t, filepath.Join("..", "..", "examples", "express"), "express", "*.ts", "*.json")
	run(t, folder, nil, "npx", "tsc")
	p := new(profiles)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.away.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/gone":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			fmt.Fprint(w, `{"plan": "pro", "since": "2024-03-01T12:00:00Z"}`)
		}
	}))
	t.Cleanup(p.Close)
	port := testbed.FreePort(t)
	e := &express{url: "http://127.0.0.1:" + port + "/user-sync", old: newSecret(), new: newSecret(), profiles: p}
	cmd := exec.Command("node", "dist/processor.js")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "PORT="+port, "USER_SYNC_SECRET="+e.old+", "+e.new, "PROFILES_URL="+p.URL)
	node := start(t, cmd)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := node.Await(ctx, 1, procs.Match{Text: ":" + port + "/user-sync"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(secret)
}

// signed returns a request for the endpoint that is signed with the secrets.
func (e *express) signed(t *testing.T, body string, at time.Time, secrets ...string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	const id = "msg_5f0c1e9a3b7d42c68e10f4a9d2b35c77"
	var signatures []string
	for _, secret := range secrets {
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := webhook.Sign(id, at, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, signature)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(standardwebhooks.HeaderWebhookID, id)
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	if len(signatures) > 0 {
		request.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return request
}

// reply is what the endpoint answered.
type reply struct {
	status int
	header http.Header
	body   string
}

func send(t *testing.T, request *http.Request) reply {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

// batchOf returns the body of a request with the records.
func batchOf(records string) string {
	return `{"jobType": "user-sync", "runId": "1795574400000:user-sync", "syncType": "full", "attempt": 1, "retries": 0,
		"reference": "2026-11-25T02:40:00.000Z", "records": [` + records + `]}`
}

func TestExpressAnswers(t *testing.T) {
	e := startExpress(t)
	got := send(t, e.signed(t, batchOf(`{"_id": {"$oid": "65a1f0c2e4b0a1b2c3d4e5f6"}, "username": "ada", "email": " Ada@Codex.example"},
		{"_id": {"$numberLong": "9007199254740993"}, "username": "grace ünlü"}, {"_id": 42, "email": "x@codex.example"}, {"_id": "n", "username": "gone"},
		{"_id": "b", "username": "broken"}`),
		time.Now(), e.new))
	const want = `{"results":[{"_id":{"$oid":"65a1f0c2e4b0a1b2c3d4e5f6"},"set":{"plan":"pro","since":{"$date":"2024-03-01T12:00:00Z"},"email":"ada@codex.example"}},` +
		`{"_id":{"$numberLong":"9007199254740993"},"set":{"plan":"pro","since":{"$date":"2024-03-01T12:00:00Z"}}},` +
		`{"_id":42,"error":"the user has no username"},{"_id":"n","unset":["plan","since"]},{"_id":"b","error":"profiles answered with 500"}]}`
	if got.status != http.StatusOK || got.body != want || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") {
		t.Errorf("got %+v, want %s", got, want)
	}

	one := batchOf(`{"_id": 1, "username": "ada"}`)
	changed := e.signed(t, one, time.Now(), e.new)
	changed.Body = io.NopCloser(strings.NewReader(strings.Replace(one, "ada", "eve", 1)))
	for name, test := range map[string]struct {
		request *http.Request
		want    int
	}{
		"the old secret":              {e.signed(t, one, time.Now(), e.old), http.StatusOK},
		"one of two secrets is known": {e.signed(t, one, time.Now(), newSecret(), e.old), http.StatusOK},
		"the largest batch":           {e.signed(t, batchOf(`{"_id": 1, "username": "ada", "notes": "`+strings.Repeat("n", 16<<20-500)+`"}`), time.Now(), e.new), http.StatusOK},
		"a secret that is not known":  {e.signed(t, one, time.Now(), newSecret()), http.StatusUnauthorized},
		"no signature":                {e.signed(t, one, time.Now()), http.StatusUnauthorized},
		"a body that was changed":     {changed, http.StatusUnauthorized},
		"a signature of last week":    {e.signed(t, one, time.Now().Add(-7*24*time.Hour), e.new), http.StatusUnauthorized},
	} {
		if got := send(t, test.request); got.status != test.want {
			t.Errorf("%s: got %d %.300s, want %d", name, got.status, got.body, test.want)
		}
	}

	e.profiles.away.Store(true)
	away := func(what string) {
		t.Helper()
		got := send(t, e.signed(t, one, time.Now(), e.new))
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "10" {
			t.Errorf("with a service that %s: got %+v", what, got)
		}
	}
	away("says that it is away")
	e.profiles.Close()
	away("takes no connection")
}

// A worker waits for the endpoint whose service is away, and then the users have what it says of them.
func TestExpressBehindAWorker(t *testing.T) {
	e := startExpress(t)
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the test with `make check`")
	}
	mongoDB, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	db := mongoDB.Database("express_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		_ = mongoDB.Disconnect(ctx) // only closes sockets
	})
	ada, grace := bson.NewObjectID(), int64(9007199254740993) // which JavaScript has no number for
	if _, err := db.Collection("users").InsertMany(t.Context(), []bson.M{
		{"_id": ada, "username": "ada", "email": " Ada@Codex.example", "hidden": "not for the endpoint"},
		{"_id": grace, "username": "grace"},
		{"_id": "gone", "username": "gone", "plan": "free"},
		{"_id": "broken", "username": "broken", "plan": "free"},
		{"_id": 42, "plan": "free"},
	}); err != nil {
		t.Fatal(err)
	}

	settings := append(redisOf(t), "MONGODB_URI="+uri, "MONGODB_DATABASE="+db.Name(),
		"USER_SYNC_URL="+e.url, "USER_SYNC_FIELDS=username,email", "USER_SYNC_SECRET="+e.old)
	e.profiles.away.Store(true)
	api, err := client.New(startAPI(t, settings...), client.WithAPIKey(key))
	if err != nil {
		t.Fatal(err)
	}
	startProgram(t, procs.Worker, settings...)
	triggered, err := api.Trigger(t.Context(), "user-sync", map[string]string{"syncType": "full"})
	if err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, "the run to wait for the endpoint", func() bool {
		job, err := api.Job(t.Context(), triggered.JobID)
		return err == nil && job.Waiting != nil && job.Waiting.Upstream
	})
	e.profiles.away.Store(false)
	var job client.Job
	testbed.Within(t, time.Minute, "the run to be completed", func() bool {
		job, err = api.Job(t.Context(), triggered.JobID)
		return err == nil && job.State == client.StateCompleted
	})
	var result client.SyncResult
	if err := json.Unmarshal(job.Result, &result); err != nil || result.UsersProcessed != 5 || result.UsersUpdated != 3 || result.Errors != 2 || job.Attempt != 1 {
		t.Errorf("in attempt %d the result is %s, %v", job.Attempt, job.Result, err)
	}
	since := bson.NewDateTimeFromTime(time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC))
	for id, want := range map[any]bson.M{
		ada:      {"plan": "pro", "since": since, "email": "ada@codex.example", "hidden": "not for the endpoint", "synced": true},
		grace:    {"plan": "pro", "since": since, "synced": true},
		"gone":   {"plan": nil, "since": nil, "synced": true},
		"broken": {"plan": "free", "synced": false},
		42:       {"plan": "free", "synced": false},
	} {
		var user bson.M
		if err := db.Collection("users").FindOne(t.Context(), bson.M{"_id": id}).Decode(&user); err != nil {
			t.Fatal(err)
		}
		user["synced"] = user["lastSynced"] != nil && user["updatedAt"] != nil
		for name, value := range want {
			if user[name] != value {
				t.Errorf("%v: %s is %v, want %v", id, name, user[name], value)
			}
		}
	}
}
