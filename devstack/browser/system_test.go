//go:build browser

package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/demo/users"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	userCount = 300
	// waitLimit is how long the test waits for what must happen, on a busy machine.
	waitLimit = 40 * time.Second
	// slowness is how much longer each command to MongoDB takes, so that a run lasts a minute.
	slowness = 100 * time.Millisecond
	// markup is the name of one of the users.
	markup = `<img src=x onerror="document.title='owned'">`
)

// system is the programs with servers of their own.
type system struct {
	t   *testing.T // the programs run until it ends
	url string
	bin string // the folder of the programs
	// key is what requests are sent with; "" if the API has no keys.
	key string
	// mongodb is a proxy before MongoDB that makes runs slow.
	mongodb       *testbed.Proxy
	uri, database string // of MongoDB itself
	env           []string
	api           *procs.Process
	workers       []*procs.Process
	killed        map[*procs.Process]bool
}

// start starts an API whose dashboard may change things, a scheduler and some workers, with users to be synchronised.
func start(t *testing.T, workers int, settings ...string) *system {
	t.Helper()
	return startFrom(t, filepath.Join("..", "..", "bin"), workers, settings...)
}

// startFrom does so with the programs of a folder.
func startFrom(t *testing.T, bin string, workers int, settings ...string) *system {
	t.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		t.Fatal("MONGODB_URI is not set: run the test with `make check`")
	}
	server, err := url.Parse(uri)
	if err != nil {
		t.Fatal("MONGODB_URI cannot be put behind a proxy")
	}
	s := &system{t: t, bin: bin, mongodb: testbed.NewProxy(t, server.Host), uri: uri, database: loadUsers(t, uri), killed: make(map[*procs.Process]bool)}
	server.Host = s.mongodb.Addr
	query := server.Query()
	query.Set("directConnection", "true") // a replica set tells its own addresses
	server.RawQuery = query.Encode()
	if server.Path == "" {
		server.Path = "/"
	}

	redis := redistest.Options(t)
	host, port, err := net.SplitHostPort(redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	listening := testbed.FreePort(t)
	s.url = "http://127.0.0.1:" + listening
	s.env = append(os.Environ(),
		"REDIS_HOST="+host, "REDIS_PORT="+port, "REDIS_PASSWORD="+redis.Password, "REDIS_DB="+strconv.Itoa(redis.DB),
		"MONGODB_URI="+server.String(), "MONGODB_DATABASE="+s.database,
		"HOST=127.0.0.1", "PORT="+listening, "DASHBOARD_READ_ONLY=false", "LOG_FORMAT=json", "ADMIN_PORT=off",
		"TRUSTED_PROXIES=127.0.0.1",
		// A batch for each user, so that there is time to look.
		"SYNC_BATCH_SIZE=1", "SYNC_WRITERS=1",
	)
	s.env = append(s.env, settings...)
	s.api = s.run(procs.API)
	s.run(procs.Scheduler)
	for range workers {
		s.workers = append(s.workers, s.run(procs.Worker))
	}
	testbed.Eventually(t, "the system to be ready", func() bool {
		var health struct{ Jobs struct{ Initialized bool } }
		return s.ask(http.MethodGet, "/health", "", &health) == nil && health.Jobs.Initialized
	})
	return s
}

// loadUsers fills a database, which is dropped with the test, and returns its name.
func loadUsers(t *testing.T, uri string) string {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	db := client.Database("browser_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
		_ = client.Disconnect(ctx) // only closes sockets
	})
	documents := users.Generate(userCount, 1)
	documents[0] = bson.D{{Key: "_id", Value: "markup"}, {Key: "username", Value: markup}}
	for i := 0; i < len(documents); i += 50 { // the embedded server needs small commands
		if _, err := db.Collection("users").InsertMany(t.Context(), documents[i:min(i+50, len(documents))]); err != nil {
			t.Fatal(err)
		}
	}
	return db.Name()
}

// insert adds a document to a collection of the test's database.
func (s *system) insert(t *testing.T, collection string, document bson.D) {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(s.uri))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) }() // only closes sockets
	if _, err := client.Database(s.database).Collection(collection).InsertOne(t.Context(), document); err != nil {
		t.Fatal(err)
	}
}

// run runs one of the programs until the test ends.
func (s *system) run(name string, settings ...string) *procs.Process {
	t := s.t
	t.Helper()
	path, err := filepath.Abs(filepath.Join(s.bin, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the programs are not built, run `make build`: %v", err)
	}
	cmd := exec.Command(path)
	cmd.Dir, cmd.Env = t.TempDir(), append(slices.Clip(s.env), settings...) // the folder has no .env
	p, err := procs.Start(cmd, procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if killed := p.Stop(procs.StopGrace); !s.killed[p] && (killed || p.ExitCode() != 0) {
			t.Errorf("%s ended with %s", name, p.Status())
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", name, p.Log().Tail(procs.TailLines))
		}
	})
	return p
}

// ask sends a request and decodes the answer.
func (s *system) ask(method, path, body string, answer any) error {
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if s.key != "" {
		request.SetBasicAuth("", s.key)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: waitLimit}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return json.Unmarshal(text, answer)
}

// trigger starts a full synchronisation of the users, and returns its ID.
func (s *system) trigger(t *testing.T) string {
	t.Helper()
	return s.triggerWith(t, `{"syncType": "full"}`)
}

// triggerWith triggers a synchronisation of the users with a body, and returns its ID.
func (s *system) triggerWith(t *testing.T, body string) string {
	t.Helper()
	var answer struct{ Data struct{ JobID string } }
	if err := s.ask(http.MethodPost, "/jobs/trigger/user-sync", body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data.JobID
}

// reaches waits for a job to be in a state.
func (s *system) reaches(t *testing.T, id, state string) {
	t.Helper()
	testbed.Eventually(t, id+" to be "+state, func() bool {
		var answer struct{ Data struct{ State string } }
		return s.ask(http.MethodGet, "/jobs/"+id, "", &answer) == nil && answer.Data.State == state
	})
}

// paused asks the API whether the user sync is paused.
func (s *system) paused(t *testing.T) bool {
	t.Helper()
	var answer struct{ Data struct{ Paused bool } }
	if err := s.ask(http.MethodGet, "/jobs/status", "", &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data.Paused
}
