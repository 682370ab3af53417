//go:build slow

package e2e_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// Redis servers of a test's own, for masters that die, clusters and TLS.

const (
	// answerLimit is how long the API may take to answer, in any state of its servers.
	answerLimit = 2 * time.Second
	// failoverLimit is when the API serves again after a master was killed: the servers take some three seconds to agree,
	// and the clients as long to notice.
	failoverLimit = 20 * time.Second

	redisPassword = "r3dis"
)

// redisServer is a redis-server or a redis-sentinel.
type redisServer struct {
	addr, port string

	program, dir string
	arguments    []string
	process      *procs.Process
}

// serving is the line of a server's log that says that it serves.
var serving = map[string]string{"redis-server": "Ready to accept connections", "redis-sentinel": "Sentinel ID is"}

// startRedis starts a server on a free port; it ends with the test. The arguments come on top of its address and its data
// directory.
func startRedis(t *testing.T, program string, arguments func(port string) []string) *redisServer {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("this test needs %s: %v", program, err)
	}
	port := testbed.FreePort(t)
	s := &redisServer{addr: net.JoinHostPort("127.0.0.1", port), port: port, program: path, dir: t.TempDir(), arguments: arguments(port)}
	s.start(t)
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the log of the %s at %s ends with\n%s", program, s.addr, s.process.Log().Tail(shownLines))
		}
	})
	return s
}

// startDurableRedis starts a redis-server that has each change on disk before it answers.
func startDurableRedis(t *testing.T) *redisServer {
	t.Helper()
	return startRedis(t, "redis-server", func(port string) []string {
		return []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"}
	})
}

// start starts the server on its port.
func (s *redisServer) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(s.program, s.arguments...)
	cmd.Dir = s.dir
	process, err := procs.Start(cmd, procs.Options{Log: new(procs.Log)})
	if err != nil {
		t.Fatal(err)
	}
	s.process = process
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if _, err := process.Await(ctx, 1, procs.Match{Text: serving[filepath.Base(s.program)]}); err != nil {
		process.Kill()
		t.Fatalf("%v:\n%s", err, process.Log().Tail(procs.TailLines))
	}
}

// restart starts a killed server again, with its data.
func (s *redisServer) restart(t *testing.T) {
	t.Helper()
	s.start(t)
}

// kill ends the server as a power failure does.
func (s *redisServer) kill() { s.process.Kill() }

// client returns a client of this server, as a user with all rights.
func (s *redisServer) client(t *testing.T) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.addr, Password: redisPassword, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// aclFile is the file of users from docs/deploying.md, with redisPassword.
func aclFile(t *testing.T) string {
	t.Helper()
	document, err := os.ReadFile("../docs/deploying.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(document), "```text users.acl\n")
	text, _, found := strings.Cut(text, "```\n")
	if !found || !strings.Contains(text, "\nuser codex on >change-me ") {
		t.Fatalf("docs/deploying.md has no user: %q", text)
	}
	return strings.Replace(text, "change-me", redisPassword, 1)
}

// userEnv has the settings with which the processes log in as that user.
var userEnv = []string{"REDIS_USERNAME=codex", "REDIS_PASSWORD=" + redisPassword}

// serverArguments are the arguments of every redis-server without TLS. Its default user has all rights, and the password of
// the processes' user.
func serverArguments(t *testing.T, port string, more ...string) []string {
	t.Helper()
	_, user, _ := strings.Cut(aclFile(t), "\nuser ")
	arguments := append([]string{"--user"}, strings.Fields(user)...)
	return append(append(arguments, "--port", port, "--requirepass", redisPassword, "--masterauth", redisPassword), append(storing, more...)...)
}

var storing = []string{
	"--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0",
}

// info returns a field of the server's INFO.
func info(t *testing.T, c redis.UniversalClient, section, field string) string {
	t.Helper()
	text, _ := c.Info(t.Context(), section).Result() // "" while it does not answer
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return value
		}
	}
	return ""
}

// wantOutage triggers runs of the job until the API answers that Redis is not there, and then until it serves again. Every
// answer must come in time.
func (s *system) wantOutage(t *testing.T, job string) {
	t.Helper()
	begun := time.Now()
	var away, back time.Duration
	for back == 0 {
		asked := time.Now()
		status, body := s.request(t, http.MethodPost, "/jobs/trigger/"+job, "")
		if took := time.Since(asked); took > answerLimit {
			t.Errorf("the API answered %d after %s", status, took)
		}
		switch {
		case status == http.StatusServiceUnavailable && away == 0:
			away = time.Since(begun)
		case status == http.StatusServiceUnavailable:
		case status != http.StatusOK:
			t.Fatalf("a trigger in an outage: %d %s", status, body)
		case away != 0:
			back = time.Since(begun)
		}
		if time.Since(begun) > failoverLimit {
			t.Fatalf("the outage began after %s and has not ended within %s", away, failoverLimit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("the API noticed the outage after %s and served again after %s", away.Round(time.Millisecond), back.Round(time.Millisecond))
}

// wantNothingDenied checks that the server has denied its users no command.
func wantNothingDenied(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	denied, err := c.Do(t.Context(), "ACL", "LOG").Slice()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range denied {
		t.Errorf("denied: %v", d)
	}
}

// wantUncharged checks that the run has completed in its first attempt, even if several workers had it.
func (s *system) wantUncharged(t *testing.T, id tasks.RunID, workers ...*process) {
	t.Helper()
	info, err := s.inspector.GetTaskInfo(id.Job, id.String())
	if err != nil || info.Retried != 0 {
		t.Errorf("the run: %+v, %v; want it completed without a retry", info, err)
	}
	for _, w := range workers {
		for _, line := range w.log(runStarted, attrs{"jobId": id.String()}) {
			if line["attempt"] != 1.0 {
				t.Errorf("an attempt was charged: %v", line)
			}
		}
	}
}

// wantOnce checks that a process has logged the loss of Redis and its return once each.
func wantOnce(t *testing.T, p *process) {
	t.Helper()
	p.waitForLog(t, "Redis reachable again", attrs{"level": "INFO"})
	for _, msg := range []string{"Redis unreachable, reconnecting", "Redis reachable again"} {
		if lines := p.log(msg, nil); len(lines) != 1 {
			t.Errorf("%s logged %q %d times, want once: %v", p, msg, len(lines), lines)
		}
	}
}

// dashboardPages are asynqmon's pages, and the requests that they make.
var dashboardPages = []string{
	"", "/", "/redis", "/schedulers", "/queues/user-sync", "/api/queues", "/api/queues/user-sync", "/api/queue_stats", "/api/servers",
	"/api/scheduler_entries", "/api/redis_info", "/api/queues/user-sync/groups", "/api/queues/user-sync/pending_tasks",
	"/api/queues/user-sync/active_tasks", "/api/queues/user-sync/scheduled_tasks", "/api/queues/user-sync/retry_tasks",
	"/api/queues/user-sync/archived_tasks", "/api/queues/user-sync/completed_tasks",
}

// wantDashboard checks that every page of the dashboard is served.
func (s *system) wantDashboard(t *testing.T) {
	t.Helper()
	for _, page := range dashboardPages {
		if status, body := s.request(t, http.MethodGet, "/dashboard"+page, ""); status != http.StatusOK {
			t.Errorf("/dashboard%s: %d %s", page, status, body)
		}
	}
}

// wantControls pauses a job type, triggers it, resumes it, and cleans up after it.
func (s *system) wantControls(t *testing.T, job string) {
	t.Helper()
	type status struct {
		Data struct {
			Paused bool
			Counts struct{ Active, Waiting, Completed, Failed int }
		}
	}
	post := func(path, body string) {
		t.Helper()
		if code, answer := s.request(t, http.MethodPost, path, body); code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, code, answer)
		}
	}
	named := `{"job": "` + job + `"}`
	post("/jobs/pause", named)
	id := s.triggerJob(t, job, `{"syncType": "full"}`)
	var paused status
	if code := s.get(t, "/jobs/status?job="+job, &paused); code != http.StatusOK || !paused.Data.Paused || paused.Data.Counts.Waiting == 0 {
		t.Errorf("the paused job type: %d %+v", code, paused)
	}
	post("/jobs/resume", named)
	s.result(t, id)
	testbed.Eventually(t, job+" to be cleaned up", func() bool {
		post("/jobs/cleanup", `{"job": "`+job+`", "gracePeriodHours": 0}`)
		var cleaned status
		return s.get(t, "/jobs/status?job="+job, &cleaned) == http.StatusOK && !cleaned.Data.Paused && cleaned.Data.Counts.Completed == 0
	})
}

// wantHealthy runs the health checks of the programs.
func (s *system) wantHealthy(t *testing.T) {
	t.Helper()
	for _, name := range deployables {
		testbed.Eventually(t, name+" is healthy", func() bool {
			status, _, _ := run(t, command(t, name, s.env, "--healthy"))
			return status == 0
		})
	}
	testbed.Eventually(t, "a health check without complaints", func() bool {
		h, status := s.health(t)
		return status == http.StatusOK && h.Status == "OK" && h.Jobs.Initialized
	})
}
