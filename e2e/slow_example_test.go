//go:build slow

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hibiken/asynq"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// The tests in this file run examples/directory as its team would: its own programs, and the directory that its users come from.

const (
	exampleDir = "../examples/directory"
	// exampleUsers is how many users there are. In batches of exampleBatch, at five a second, they take some 15 s.
	exampleUsers = 330
	exampleBatch = 5
	exampleFull  = `{"syncType":"full","batchSize":5}`
	// exampleLimit is how many calls the directory allows in a second. It is the Rate of the example's sync.
	exampleLimit = 5
	// The directory does not know the one user, and says nonsense of the other.
	exampleGone, exampleBroken = "u0007", "u0042"
	welcomeMail                = "welcome-mail"
)

// buildExample builds the example's programs, once for all tests.
var buildExample = sync.OnceValue(func() error {
	arguments := append([]string{"build", "-o", filepath.Join(binDir, "example") + string(filepath.Separator)}, raceFlags...)
	build := exec.Command("go", append(arguments, "./cmd/...")...)
	build.Dir = exampleDir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the example: %w\n%s", err, out)
	}
	return nil
})

// example is a running example, with three workers.
type example struct {
	*system
	directory string // its URL
	workers   []*process
}

func setupExample(t *testing.T, env ...string) *example {
	t.Helper()
	if err := buildExample(); err != nil {
		t.Fatal(err)
	}
	e := &example{system: setup(t)}
	users := make([]bson.D, exampleUsers)
	for i := range users {
		users[i] = bson.D{
			{Key: "_id", Value: fmt.Sprintf("u%04d", i)}, {Key: "email", Value: "old@example.com"}, {Key: "team", Value: "blue"},
		}
	}
	e.insert(t, users)

	addr := "127.0.0.1:" + testbed.FreePort(t)
	e.directory = "http://" + addr
	directory, err := procs.Start(exec.Command(filepath.Join(binDir, "example", "directory"), "-addr", addr, "-latency", "200ms",
		"-limit", fmt.Sprint(exampleLimit), "-unknown", exampleGone, "-broken", exampleBroken), procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	d := &process{Process: directory}
	t.Cleanup(d.Kill)
	d.waitForLog(t, "Directory ready", nil)

	// Only what the tests trigger runs. Small ranges, so that the workers share a run.
	e.env = append(e.env, "DIRECTORY_URL="+e.directory, "USER_SYNC_INTERVAL=off", "SYNC_RANGE_SIZE=40")
	e.env = append(e.env, env...)
	e.startExample(t, "api")
	e.startExample(t, "scheduler")
	for range 3 {
		e.workers = append(e.workers, e.startExample(t, "worker"))
	}
	return e
}

// startExample runs one of the example's programs, and waits until it is ready.
func (e *example) startExample(t *testing.T, program string) *process {
	t.Helper()
	p := e.start(t, filepath.Join("example", program))
	p.waitForLog(t, procs.Ready(program).Msg, nil)
	return p
}

// ask decodes the directory's answer to a request into v. It asks again while the directory has had too many calls.
func (e *example) ask(t *testing.T, method, path string, v any) {
	t.Helper()
	testbed.Eventually(t, "an answer of the directory", func() bool {
		request, err := http.NewRequestWithContext(t.Context(), method, e.directory+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		status, data := send(t, request)
		if status == http.StatusTooManyRequests {
			return false
		}
		if err := json.Unmarshal(data, v); err != nil || status != http.StatusOK {
			t.Fatalf("%s %s: %d %s", method, path, status, data)
		}
		return true
	})
}

// directoryStats are what the directory has counted.
type directoryStats struct {
	Calls, Refused, Away, Busiest, Mails, Repeated int
	MailsAtOnce                                    map[string]int
}

func (e *example) stats(t *testing.T) (stats directoryStats) {
	t.Helper()
	e.ask(t, http.MethodGet, "/stats", &stats)
	return stats
}

// wantRate checks that no second had more calls than the directory allows, as it has counted them.
func (e *example) wantRate(t *testing.T, least int) {
	t.Helper()
	got := e.stats(t)
	if got.Busiest > exampleLimit || got.Refused > 0 || got.Calls < least {
		t.Errorf("the directory has counted %+v, want at least %d calls, and at most %d in any second", got, least, exampleLimit)
	}
	t.Logf("the directory has counted %+v", got)
}

// wantSynced checks the result of a full sync, and each user.
func (e *example) wantSynced(t *testing.T, result tasks.SyncResult, id tasks.RunID) {
	t.Helper()
	if !result.Success || result.UsersProcessed != exampleUsers || result.UsersUpdated != exampleUsers-1 || result.Errors != 1 {
		t.Errorf("the result is %+v, want all %d users updated but one", result, exampleUsers)
	}
	info, err := e.inspector.GetTaskInfo(userSync, id.String())
	if err != nil || info.State != asynq.TaskStateCompleted || info.Retried != 0 {
		t.Errorf("the run is %+v, %v; want it completed in its first attempt", info, err)
	}
	for _, w := range e.workers {
		for _, msg := range []string{runStarted, "Starting range"} {
			for _, line := range w.log(msg, attrs{"jobId": id.String()}) {
				if line["attempt"] != 1.0 {
					t.Errorf("an attempt was charged: %v", line)
				}
			}
		}
	}

	users := e.snapshot(t)
	if len(users) != exampleUsers {
		t.Errorf("%d users, want %d", len(users), exampleUsers)
	}
	// What the directory says, in pages.
	said := make(map[string]map[string]string)
	for first := 0; first < exampleUsers; first += 100 {
		var ids []string
		for i := first; i < min(first+100, exampleUsers); i++ {
			if id := fmt.Sprintf("u%04d", i); id != exampleBroken {
				ids = append(ids, id)
			}
		}
		var page struct{ Users []map[string]string }
		e.ask(t, http.MethodGet, "/users?ids="+url.QueryEscape(strings.Join(ids, ",")), &page)
		for _, user := range page.Users {
			said[user["id"]] = user
		}
	}
	wrong := 0
	for _, user := range users {
		name := user.Lookup("_id").StringValue()
		synced, _ := user.Lookup(lastSynced).TimeOK()
		text := func(field string) string { s, _ := user.Lookup(field).StringValueOK(); return s }
		gone, _ := user.Lookup("gone").BooleanOK()
		var ok bool
		switch name {
		case exampleBroken:
			ok = synced.IsZero() && text("email") == "old@example.com"
		case exampleGone:
			ok = synced.Equal(id.Reference) && gone && text("email")+text("displayName")+text("department") == ""
		default:
			ok = synced.Equal(id.Reference) && !gone
			for _, field := range []string{"email", "displayName", "department"} {
				ok = ok && text(field) != "" && text(field) == said[name][field]
			}
		}
		if ok = ok && text("team") == "blue"; !ok {
			if wrong++; wrong < 5 {
				t.Errorf("%s; the directory says %v", user, said[name])
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d users are not as they should be", wrong)
	}
}

// begun waits until some of a run is done.
func (e *example) begun(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, "some calls of the directory", func() bool { return e.stats(t).Calls >= 10 })
}

// control pauses or resumes a job type.
func (e *example) control(t *testing.T, action, job string) {
	t.Helper()
	if status, data := e.request(t, http.MethodPost, "/jobs/"+action, fmt.Sprintf(`{"job":%q}`, job)); status != http.StatusOK {
		t.Fatalf("%s %s: %d %s", action, job, status, data)
	}
}

// A full sync brings each user's fields up to date, and again after they have changed. All workers take part, and the rate limit
// holds over them. Then mails go out, ten at a time from each worker.
func TestSlowExample(t *testing.T) {
	t.Parallel()
	e := setupExample(t)
	var known struct {
		Data struct{ JobTypes []struct{ Name string } }
	}
	if e.get(t, "/job-types", &known); fmt.Sprint(known.Data.JobTypes) != fmt.Sprintf("[{%s} {%s}]", userSync, welcomeMail) {
		t.Errorf("the job types are %v", known.Data.JobTypes)
	}
	testbed.Eventually(t, "a health check that sees all of the processes", func() bool {
		h, status := e.health(t)
		return status == http.StatusOK && h.Jobs.Workers == 3 && h.Jobs.Schedulers == 1
	})
	id := e.trigger(t, exampleFull)
	result := e.result(t, id)
	e.wantRate(t, exampleUsers/exampleBatch)
	e.wantSynced(t, result, id)
	workers := 0
	for _, w := range e.workers {
		if len(w.log("Range completed", nil)) > 0 {
			workers++
		}
	}
	if workers < 2 {
		t.Errorf("%d workers took part, want several", workers)
	}

	var changed map[string]int
	e.ask(t, http.MethodPost, "/change", &changed)
	id = e.trigger(t, `{"syncType":"full","batchSize":100}`)
	e.wantSynced(t, e.result(t, id), id)

	status, data := e.request(t, http.MethodPost, "/jobs/trigger/"+welcomeMail, `{"email":"ada"}`)
	if status != http.StatusBadRequest || !strings.Contains(string(data), "it must be an email address") {
		t.Errorf("a mail without an address: %d %s", status, data)
	}
	// All wait, and begin together.
	const mails, atOnce = 90, 10
	e.control(t, "pause", welcomeMail)
	for i := range mails {
		e.triggerJob(t, welcomeMail, fmt.Sprintf(`{"email":"u%04d@example.com"}`, i))
	}
	e.control(t, "resume", welcomeMail)
	testbed.Eventually(t, "all mails", func() bool {
		info, err := e.inspector.GetQueueInfo(welcomeMail)
		return err == nil && info.Completed == mails
	})
	got := e.stats(t)
	most := 0
	for _, n := range got.MailsAtOnce {
		most = max(most, n)
	}
	if got.Mails != mails || got.Repeated > 0 || most != atOnce {
		t.Errorf("the directory has counted %+v, want %d mails, and %d at the same time from a worker", got, mails, atOnce)
	}
	t.Logf("the directory has counted %+v", got)
	for _, w := range e.workers {
		w.stop(t)
	}
}

// A worker that is killed in the middle costs time only.
func TestSlowExampleKilledWorker(t *testing.T) {
	t.Parallel()
	e := setupExample(t)
	id := e.trigger(t, exampleFull)
	e.begun(t)
	killed := -1
	testbed.Eventually(t, "a worker with a range", func() bool {
		killed = slices.IndexFunc(e.workers, func(w *process) bool {
			return len(w.log("Starting range", nil)) > len(w.log("Range completed", nil))
		})
		return killed >= 0
	})
	e.workers[killed].Kill()
	e.workers[killed] = e.startExample(t, "worker")
	result := e.resultWithin(t, rangeRecoveryLimit+waitLimit, id)
	recovered := 0
	for _, w := range e.workers {
		recovered += len(w.log("Recovered range from a dead worker", nil))
	}
	if recovered == 0 {
		t.Error("no range was taken over")
	}
	e.wantRate(t, exampleUsers/exampleBatch)
	e.wantSynced(t, result, id)
}

// A run waits for a directory that is away, at no cost.
func TestSlowExampleDirectoryAway(t *testing.T) {
	t.Parallel()
	e := setupExample(t)
	id := e.trigger(t, exampleFull)
	e.begun(t)
	var away map[string]string
	e.ask(t, http.MethodPost, "/away?for=20s", &away)
	testbed.Eventually(t, "the run to say what it waits for", func() bool {
		status, data := e.request(t, http.MethodGet, "/jobs/"+id.String(), "")
		return status == http.StatusOK && strings.Contains(string(data), "working on users")
	})
	result := e.resultWithin(t, 2*waitLimit, id)
	if got := e.stats(t); got.Away == 0 {
		t.Errorf("the directory got no call while it was away: %+v", got)
	}
	e.wantRate(t, exampleUsers/exampleBatch)
	e.wantSynced(t, result, id)
}
