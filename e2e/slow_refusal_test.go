//go:build slow

package e2e_test

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

// setupOwnRedis is setup with a redis-server of the test's own, whose user has the rights that docs/deploying.md lists.
func setupOwnRedis(t *testing.T) (*system, *redis.Client) {
	t.Helper()
	server := startRedis(t, "redis-server", func(port string) []string { return serverArguments(t, port) })
	o := redisconn.Options{Addr: server.addr, Username: "codex", Password: redisPassword}
	return setupOn(t, o, append(redisEnv(server.addr), userEnv...)...), server.client(t)
}

// countingProxy stands before a Redis, and counts the commands that it is sent.
func countingProxy(t *testing.T, target string) (addr string, commands *atomic.Int64) {
	t.Helper()
	commands = new(atomic.Int64)
	p, err := tcpproxy.NewServing(target, func(c *tcpproxy.Conn) {
		var answers sync.WaitGroup
		answers.Go(func() {
			_, _ = io.Copy(c.Client, c.Server)
			c.Close()
		})
		for in := bufio.NewReader(io.TeeReader(c.Client, c.Server)); readCommand(in) == nil; {
			commands.Add(1)
		}
		c.Close()
		answers.Wait()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p.Addr, commands
}

// readCommand reads one command: a line with the number of its words, and each word after a line with its length.
func readCommand(in *bufio.Reader) error {
	number := func() (n int, err error) {
		line, err := in.ReadString('\n')
		if err != nil || len(line) < 2 {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	words, err := number()
	for ; words > 0 && err == nil; words-- {
		var length int
		if length, err = number(); err == nil {
			_, err = in.Discard(length + len("\r\n"))
		}
	}
	return err
}

// A Redis that refuses writes: reads are served, writes are answered with what Redis says, everything that is asked says so, and a
// worker asks it seldom. When it accepts writes again, all goes on by itself.
func TestSlowRefusingRedis(t *testing.T) {
	t.Parallel()
	s, admin := setupOwnRedis(t)
	s.insert(t, messyUsers(50))
	s.startReady(t, "scheduler")
	s.startReady(t, "api")
	admin4worker := testbed.FreePort(t)
	proxy, commands := countingProxy(t, admin.Options().Addr)
	s.startReady(t, "worker", append(redisEnv(proxy), "ADMIN_PORT="+admin4worker)...)
	s.wantHealthy(t)
	wantComplete(t, s.result(t, s.trigger(t, "")), 50)
	for _, refusal := range []struct{ setting, value, normal, says string }{
		{"min-replicas-to-write", "1", "0", "NOREPLICAS"},
		{"maxmemory", "1", "0", "OOM"},
	} {
		// Runs wait, so a worker has reason to ask.
		for _, job := range []string{"user-sync", "project-sync", "issue-sync"} {
			if err := admin.Set(t.Context(), "asynq:{"+job+"}:paused", 1, 0).Err(); err != nil {
				t.Fatal(err)
			}
			s.triggerJob(t, job, "")
		}
		for _, job := range []string{"user-sync", "project-sync", "issue-sync"} {
			if err := admin.Del(t.Context(), "asynq:{"+job+"}:paused").Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := admin.ConfigSet(t.Context(), refusal.setting, refusal.value).Err(); err != nil {
			t.Fatal(err)
		}
		testbed.Within(t, 20*time.Second, "/health to say what Redis says", func() bool {
			var h struct {
				Status string
				Redis  struct{ Status, Error string }
				Jobs   struct{ Missing []string }
			}
			return s.get(t, "/health", &h) == http.StatusServiceUnavailable && h.Status == "DEGRADED" && h.Redis.Status == "disconnected" &&
				strings.Contains(h.Redis.Error, refusal.says) && len(h.Jobs.Missing) > 0 && h.Jobs.Missing[0] == "Redis"
		})
		for _, path := range []string{"/readyz", "/jobs/status", "/jobs/status?job=all", "/schedules", "/jobs", "/job-types", "/processes"} {
			if status, body := s.request(t, http.MethodGet, path, ""); status != http.StatusOK {
				t.Errorf("%s: GET %s: %d %s", refusal.says, path, status, body)
			}
		}
		for path, body := range map[string]string{"/jobs/trigger/user-sync": `{"syncType":"full"}`, "/jobs/pause": ""} {
			if status, body := s.request(t, http.MethodPost, path, body); status != http.StatusServiceUnavailable || !strings.Contains(string(body), refusal.says) {
				t.Errorf("%s: POST %s: %d %s", refusal.says, path, status, body)
			}
		}
		if _, body := s.request(t, http.MethodGet, "/metrics", ""); !strings.Contains(string(body), "\ncodex_jobs_redis_writable 0\n") || !strings.Contains(string(body), "\ncodex_jobs_redis_up 1\n") {
			t.Errorf("%s: the metrics do not say so", refusal.says)
		}
		if status := statusOf(t, "http://127.0.0.1:"+admin4worker+"/readyz"); status != http.StatusServiceUnavailable {
			t.Errorf("%s: the worker's readiness is %d", refusal.says, status)
		}
		before, seconds := commands.Load(), 10
		time.Sleep(time.Duration(seconds) * time.Second) // what is counted
		if n := commands.Load() - before; n > int64(20*seconds) {
			t.Errorf("%s: the worker sent %d commands in %d s", refusal.says, n, seconds)
		} else {
			t.Logf("%s: the worker sent %d commands in %d s", refusal.says, n, seconds)
		}
		if err := admin.ConfigSet(t.Context(), refusal.setting, refusal.normal).Err(); err != nil {
			t.Fatal(err)
		}
		s.waitUntilIdle(t)
		testbed.Within(t, 20*time.Second, "health", func() bool { _, status := s.health(t); return status == http.StatusOK })
		wantComplete(t, s.result(t, s.trigger(t, `{"syncType":"full"}`)), 50)
	}
	// And one that is flushed: what is triggered then is seen and done, and the schedule goes on.
	if err := admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	wantComplete(t, s.result(t, s.trigger(t, `{"syncType":"full"}`)), 50)
	testbed.Within(t, 20*time.Second, "health", func() bool { h, status := s.health(t); return status == http.StatusOK && len(h.Jobs.Missing) == 0 })
	testbed.Within(t, 20*time.Second, "the queues of all job types", func() bool {
		queues, err := s.inspector.Queues()
		return err == nil && len(queues) >= 3
	})
	testbed.Within(t, 20*time.Second, "the latest tick", func() bool {
		n, err := admin.Exists(t.Context(), "codex-jobs:{user-sync}:tick").Result()
		return err == nil && n == 1
	})
	wantNothingDenied(t, admin)
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _ := send(t, request)
	return status
}

// A program whose Redis user lacks a right ends, and names the rule that is lacking.
func TestSlowLackingRights(t *testing.T) {
	t.Parallel()
	s, admin := setupOwnRedis(t)
	for _, test := range []struct {
		programs   []string
		take, give string // ACL rules
		says       string
	}{
		{[]string{"worker"}, "-subscribe", "+subscribe", "+subscribe"},
		{[]string{"worker", "scheduler", "api"}, "resetchannels &asynq:cancel", "&codex-jobs:work", "&codex-jobs:work"},
		{[]string{"worker", "scheduler", "api"}, "-evalsha -zadd", "+evalsha +zadd", "+zadd +evalsha"},
		{[]string{"worker", "scheduler", "api"}, "resetkeys ~asynq:*", "~codex-jobs:*", "~codex-jobs:*"},
		{[]string{"worker", "scheduler", "api"}, "-exists", "+exists", "+exists"},
	} {
		set := func(rules string) {
			t.Helper()
			command := []any{"ACL", "SETUSER", "codex"}
			for rule := range strings.FieldsSeq(rules) {
				command = append(command, rule)
			}
			if err := admin.Do(t.Context(), command...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		set(test.take)
		for _, program := range test.programs {
			status, log, _ := run(t, command(t, program, s.env))
			if status != 1 || !strings.Contains(log, "add "+test.says+" to its ACL rules") {
				t.Errorf("%s without %s: exit status %d, %s", program, test.says, status, log)
			}
		}
		set(test.give)
	}
	for _, program := range []string{"worker", "scheduler", "api"} {
		s.startReady(t, program)
	}
}
