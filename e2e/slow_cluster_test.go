//go:build slow

package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const slots = 16384

// startCluster starts three masters, and a replica of the one that has the slot of the key.
func startCluster(t *testing.T, key string) (masters []*redisServer, owner int) {
	t.Helper()
	var nodes []*redisServer
	var clients []*redis.Client
	for range 4 {
		bus := testbed.FreePort(t)
		node := startRedis(t, "redis-server", func(port string) []string {
			return serverArguments(t, port, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
		})
		nodes, clients = append(nodes, node), append(clients, node.client(t))
		if err := clients[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", node.port, bus).Err(); err != nil {
			t.Fatal(err)
		}
	}
	replica := clients[3]
	for i, c := range clients[:3] {
		if err := c.ClusterAddSlotsRange(t.Context(), i*slots/3, (i+1)*slots/3-1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	slot, err := clients[0].ClusterKeySlot(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	owner = int(slot) * 3 / slots
	id, err := clients[owner].ClusterMyID(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, "the nodes to know each other", func() bool {
		return replica.ClusterReplicate(t.Context(), id).Err() == nil
	})
	testbed.Eventually(t, "the cluster to be whole", func() bool {
		return !slices.ContainsFunc(clients, func(c *redis.Client) bool {
			state, err := c.ClusterInfo(t.Context()).Result()
			known, _ := c.ClusterShards(t.Context()).Result() // none when the other failed
			return err != nil || !strings.Contains(state, "cluster_state:ok") || len(known) != 3 ||
				!slices.ContainsFunc(known, func(s redis.ClusterShard) bool { return len(s.Nodes) == 2 })
		}) && info(t, replica, "replication", "master_link_status") == "up"
	})
	return nodes[:3], owner
}

// scan returns the keys of all masters that match the pattern.
func (s *system) scan(t *testing.T, pattern string) (keys []string) {
	t.Helper()
	var mu sync.Mutex
	err := s.rdb.(*redis.ClusterClient).ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
		found, err := node.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, found...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The whole system on a cluster, with everything that touches several keys or asks all masters. Then the master that has the
// run dies, and its replica takes its place.
func TestSlowCluster(t *testing.T) {
	t.Parallel()
	const n, few = 400, 40
	masters, owner := startCluster(t, "codex-jobs:{"+userSync+"}:tick")
	var addrs []string
	for _, m := range masters[:2] { // two of the three are enough
		addrs = append(addrs, m.addr)
	}
	s := setupOn(t, redisconn.Options{Password: redisPassword, Cluster: addrs}, "REDIS_CLUSTER_ADDRS="+strings.Join(addrs, ","))
	s.env = append(s.env, userEnv...)
	s.insert(t, messyUsers(n))
	before := s.snapshot(t)
	for _, name := range []string{"projects", "issues"} {
		var records []bson.D
		for i := range few {
			records = append(records, bson.D{{Key: "_id", Value: fmt.Sprint(name, i)}})
		}
		if _, err := s.users.Database().Collection(name).InsertMany(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	const dead = 20 // in as many slots, and so on every master
	for i := range dead {
		if err := s.rdb.ZAdd(t.Context(), "asynq:scheduler_history:dead-"+strconv.Itoa(i), redis.Z{Member: "x"}).Err(); err != nil {
			t.Fatal(err)
		}
	}

	s.env = append(s.env, "SYNC_RANGE_SIZE=25", "SYNC_BATCH_SIZE=5", "USER_SYNC_INTERVAL=off", "ISSUE_SYNC_INTERVAL=5s")
	proxy := s.mongoProxy(t)
	proxy.Delay(batchDelay)
	s.env = append(s.env, s.mongoEnv(t, proxy))
	api, scheduler := s.startReady(t, "api"), s.startReady(t, "scheduler")
	workers := []*process{s.startReady(t, "worker", "LOG_LEVEL=debug"), s.startReady(t, "worker", "LOG_LEVEL=debug")}
	all := append([]*process{api, scheduler}, workers...)
	s.wantHealthy(t)
	if left := s.scan(t, "asynq:scheduler_history:dead-*"); len(left) > 0 {
		t.Errorf("of dead schedulers there is left %q", left)
	}

	// All job types at the same time, in ranges.
	ids := map[string]tasks.RunID{}
	for _, job := range []string{userSync, "project-sync", "issue-sync"} {
		ids[job] = s.triggerJob(t, job, `{"syncType": "full"}`)
	}
	for job, id := range ids {
		records := few
		if job == userSync {
			records = n
		}
		wantComplete(t, s.result(t, id), records)
	}
	s.wantStamped(t, before, ids[userSync].Reference, ids[userSync].Reference)
	if len(workers[0].log("Starting range", attrs{"jobId": ids[userSync].String()}))+len(workers[1].log("Starting range", attrs{"jobId": ids[userSync].String()})) == 0 {
		t.Error("the run was not split into ranges")
	}
	scheduler.waitForLog(t, "Tick enqueued", attrs{"job": "issue-sync"})
	s.wantDashboard(t)
	var page struct {
		Cluster        bool
		QueueLocations []struct {
			Queue string
			Nodes []string
		} `json:"queue_locations"`
	}
	if s.get(t, "/dashboard/api/redis_info", &page); !page.Cluster || len(page.QueueLocations) < 3 {
		t.Errorf("the dashboard's page of Redis: %+v", page)
	}
	s.wantControls(t, "project-sync")
	s.wantControls(t, userSync)
	for _, p := range all {
		p.mustNotLog(t, "Redis unreachable, reconnecting")
	}

	// The master of the user sync dies in the middle of a run.
	id := s.trigger(t, `{"syncType": "full"}`)
	testbed.Eventually(t, "the middle of the run", func() bool {
		return len(workers[0].log("Starting range", attrs{"jobId": id.String()}))+len(workers[1].log("Starting range", attrs{"jobId": id.String()})) > 3
	})
	masters[owner].kill()
	s.wantOutage(t, userSync)
	wantComplete(t, s.resultWithin(t, recoveryLimit, id), n)
	s.wantUncharged(t, id, workers...)
	for _, w := range workers {
		for _, line := range w.log("Starting range", nil) {
			if line["attempt"] != 1.0 {
				t.Errorf("an attempt was charged: %v", line)
			}
		}
		w.waitForLog(t, "Redis unreachable, reconnecting", attrs{"addr": net.JoinHostPort("127.0.0.1", masters[owner].port)})
		if lines := w.log("Redis unreachable, reconnecting", nil); len(lines) != 1 {
			t.Errorf("%s logged the loss of one node %d times: %v", w, len(lines), lines)
		}
	}
	wantComplete(t, s.result(t, s.trigger(t, `{"syncType": "full"}`)), n)
	ticks := len(scheduler.log("Tick enqueued", nil))
	scheduler.waitForLogs(t, ticks+1, "Tick enqueued", nil)

	// It comes back as a replica, and the log says so.
	masters[owner].restart(t)
	for _, w := range workers {
		wantOnce(t, w)
	}
	testbed.Eventually(t, "nothing to be left of the runs but the kept ones", func() bool {
		return len(s.scan(t, "codex-jobs:{*}:run:*"))+len(s.scan(t, "codex-jobs:{*}:ranges:*")) == 0
	})
	if status, body := s.request(t, http.MethodGet, "/jobs/status?job=all", ""); status != http.StatusOK {
		t.Errorf("/jobs/status: %d %s", status, body)
	}
	s.wantDashboard(t)
	s.wantHealthy(t)
	for _, p := range all {
		p.stop(t)
	}
	for _, m := range masters {
		wantNothingDenied(t, m.client(t))
	}
}
