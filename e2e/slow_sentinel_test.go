//go:build slow

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	sentinelMaster   = "codex-master"
	sentinelPassword = "s3ntinel"
)

// startSentinels starts a master, a replica of it, and three sentinels that know both and each other.
func startSentinels(t *testing.T) (master, replica *redisServer, sentinels []*redisServer) {
	t.Helper()
	master = startRedis(t, "redis-server", func(port string) []string { return serverArguments(t, port) })
	replica = startRedis(t, "redis-server", func(port string) []string {
		return serverArguments(t, port, "--replicaof", "127.0.0.1 "+master.port)
	})
	c := replica.client(t)
	testbed.Eventually(t, "the replica to have what the master has", func() bool { return info(t, c, "replication", "master_link_status") == "up" })
	for range 3 {
		configuration := filepath.Join(t.TempDir(), "sentinel.conf") // the sentinel rewrites it
		sentinels = append(sentinels, startRedis(t, "redis-sentinel", func(port string) []string {
			text := fmt.Sprintf(`bind 127.0.0.1
port %s
requirepass %s
sentinel sentinel-pass %[2]s
sentinel monitor %s 127.0.0.1 %s 2
sentinel auth-pass %[3]s %[5]s
sentinel down-after-milliseconds %[3]s 1000
sentinel failover-timeout %[3]s 5000
`, port, sentinelPassword, sentinelMaster, master.port, redisPassword)
			if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{configuration}
		}))
	}
	for _, s := range sentinels {
		c := redis.NewSentinelClient(&redis.Options{Addr: s.addr, Password: sentinelPassword})
		t.Cleanup(func() { _ = c.Close() })
		testbed.Eventually(t, "the sentinels to know each other", func() bool {
			m, err := c.Master(t.Context(), sentinelMaster).Result()
			return err == nil && m["num-other-sentinels"] == "2" && m["num-slaves"] == "1"
		})
	}
	return master, replica, sentinels
}

// The master and one of the sentinels die in the middle of a run. The replica becomes the master, and the system goes on by
// itself.
func TestSlowSentinelFailover(t *testing.T) {
	t.Parallel()
	const n = 400
	master, replica, sentinels := startSentinels(t)
	var addrs []string
	for _, s := range sentinels {
		addrs = append(addrs, s.addr)
	}
	s := setupOn(t, redisconn.Options{Password: redisPassword, Sentinels: addrs, Master: sentinelMaster, SentinelPassword: sentinelPassword, DB: 3},
		"REDIS_SENTINEL_ADDRS="+strings.Join(addrs, ","), "REDIS_SENTINEL_MASTER="+sentinelMaster,
		"REDIS_SENTINEL_PASSWORD="+sentinelPassword, "REDIS_DB=3")
	s.env = append(s.env, userEnv...)
	s.insert(t, messyUsers(n))
	before := s.snapshot(t)
	s.env = append(s.env, "USER_SYNC_INTERVAL=off", "ISSUE_SYNC_INTERVAL=5s")
	proxy := s.mongoProxy(t)
	proxy.Delay(batchDelay)
	api, scheduler := s.startReady(t, "api"), s.startReady(t, "scheduler")
	workers := []*process{
		s.startReady(t, "worker", "LOG_LEVEL=debug", s.mongoEnv(t, proxy)), s.startReady(t, "worker", "LOG_LEVEL=debug", s.mongoEnv(t, proxy)),
	}
	all := append([]*process{api, scheduler}, workers...)
	scheduler.waitForLog(t, "Tick enqueued", nil)
	s.wantHealthy(t)

	id := s.trigger(t, `{"syncType": "full", "batchSize": 1}`)
	testbed.Eventually(t, "the middle of the run", func() bool {
		return len(workers[0].log(batchBegun, attrs{"skip": 50.0}))+len(workers[1].log(batchBegun, attrs{"skip": 50.0})) > 0
	})
	master.kill()
	sentinels[0].kill()
	s.wantOutage(t, "project-sync")
	if role := info(t, replica.client(t), "replication", "role"); role != "master" {
		t.Errorf("the replica is %q now, want the master", role)
	}
	wantComplete(t, s.resultWithin(t, recoveryLimit, id), n)
	s.wantUncharged(t, id, workers...)
	s.wantStamped(t, before, id.Reference, id.Reference)
	for _, p := range workers {
		wantOnce(t, p)
		p.waitForLog(t, "Redis reachable again", attrs{"addr": sentinelMaster + " of the sentinels " + strings.Join(addrs, ",")})
	}

	// Everything goes on.
	wantComplete(t, s.result(t, s.trigger(t, `{"syncType": "full"}`)), n)
	ticks := len(scheduler.log("Tick enqueued", nil))
	scheduler.waitForLogs(t, ticks+1, "Tick enqueued", nil)
	s.wantControls(t, "project-sync")

	// The old master comes back, and becomes a replica.
	master.restart(t)
	c := master.client(t)
	testbed.Eventually(t, "the old master to be a replica", func() bool { return info(t, c, "replication", "master_link_status") == "up" })
	if status, body := s.request(t, http.MethodGet, "/readyz", ""); status != http.StatusOK {
		t.Errorf("/readyz: %d %s", status, body)
	}
	wantComplete(t, s.result(t, s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})), n)
	s.wantDashboard(t)
	s.wantHealthy(t)
	for _, p := range all {
		p.stop(t)
	}
	wantNothingDenied(t, s.rdb)
}
