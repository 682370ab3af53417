//go:build slow

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redistest"
)

// ownRedis is a Redis server of the test's own, which may be killed. It has everything on disk before it answers.
type ownRedis struct {
	addr, dir string
	cmd       *exec.Cmd
}

// startRedis starts a Redis server that ends with the test. Continuous integration has redis-server installed.
func startRedis(t *testing.T) *ownRedis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not on the PATH, and this test has to kill one")
	}
	r := &ownRedis{addr: "127.0.0.1:" + freePort(t), dir: t.TempDir()}
	t.Cleanup(r.kill)
	r.start(t)
	return r
}

// start starts the server with what it had when it was killed, and waits until it answers.
func (r *ownRedis) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("redis-server", "--port", portOf(r.addr), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rdb := redistest.Client(t, jobs.RedisOptions{Addr: r.addr, Timeout: time.Second})
	eventually(t, "an answer of the test's own Redis", func() bool { return rdb.Ping(t.Context()).Err() == nil })
}

// kill ends the server at once, and returns when it has ended.
func (r *ownRedis) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	_ = r.cmd.Wait()
}

// useRedis lets the system's processes, and the test, use that server.
func (s *system) useRedis(t *testing.T, r *ownRedis) {
	t.Helper()
	s.env = append(append(s.env, redisEnv(r.addr)...), "REDIS_DB=0", "REDIS_PASSWORD=")
	s.redis = jobs.RedisOptions{Addr: r.addr, Timeout: 3 * time.Second}
	s.rdb = redistest.Client(t, s.redis)
	s.inspector = asynq.NewInspectorFromRedisClient(s.rdb)
}

// tryTrigger triggers a job and returns the ID of the run that serves it.
func (s *system) tryTrigger(t *testing.T, job, body string) (string, error) {
	status, data := s.request(t, http.MethodPost, "/jobs/trigger/"+job, body)
	var answer struct{ Data struct{ JobID string } }
	if err := json.Unmarshal(data, &answer); err != nil || status != http.StatusOK || answer.Data.JobID == "" {
		return "", fmt.Errorf("triggering %s: %d %s", job, status, data)
	}
	return answer.Data.JobID, nil
}
