//go:build slow

// The promises of docs/reliability.md that need longer faults, each with the fault that could break it.

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// away is how long a server is away: long enough for every lease to expire.
const away = 32 * time.Second

// shapes are a run on one worker, and one that is split into ranges.
var shapes = map[string]string{"in one piece": "SYNC_RANGE_SIZE=1000000", "shared": "SYNC_RANGE_SIZE=60"}

// wantNoAttempt checks that a run completed in its first attempt, and visited all users once.
func (s *system) wantNoAttempt(t *testing.T, id tasks.RunID, limit time.Duration, n int) {
	t.Helper()
	result := s.resultWithin(t, limit, id)
	result.Duration = 0 // it includes the outage
	wantComplete(t, result, n)
	info, err := s.inspector.GetTaskInfo(userSync, id.String())
	if err != nil || info.Retried != 0 || info.LastErr != "" && !strings.Contains(info.LastErr, "lease expired") {
		t.Errorf("the run: %+v, %v; want no attempt charged", info, err)
	}
}

// A worker is frozen in the middle of a run for longer than its leases last, and wakes up when another worker owns the run.
func TestSlowFrozenWorker(t *testing.T) {
	t.Parallel()
	for name, rangeSize := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 300
			s := setup(t)
			s.insert(t, messyUsers(n))
			before := s.snapshot(t)
			proxy := s.mongoProxy(t)
			proxy.Delay(batchDelay)
			s.env = append(s.env, rangeSize, "SYNC_BATCH_SIZE=2", "LOG_LEVEL=debug", s.mongoEnv(t, proxy))
			first := s.startReady(t, "worker")
			since := time.Now().Truncate(time.Millisecond)
			id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			first.waitForLogs(t, 10, batchBegun, nil)
			if err := first.Pause(); err != nil {
				t.Fatal(err)
			}
			second := s.startReady(t, "worker")
			s.wantNoAttempt(t, id, rangeRecoveryLimit+waitLimit, n)
			if err := first.Resume(); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, "the woken worker to notice", func() bool {
				return len(first.log("Lost the lease", nil)) > 0
			})
			s.wantStamped(t, before, id.Reference, since)

			// It works again, and the result of the other worker stays.
			second.stop(t)
			next := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			s.wantNoAttempt(t, next, waitLimit, n)
			s.wantNoAttempt(t, id, waitLimit, n)
			if keys, err := s.rdb.Keys(t.Context(), "codex-jobs:*:r*:*"+id.String()+"*").Result(); err != nil || len(keys) > 0 {
				t.Errorf("left of the run: %v, %v", keys, err)
			}
			first.stop(t)
		})
	}
}

// MongoDB is gone for half a minute in the middle of a run.
func TestSlowMongoDBAway(t *testing.T) {
	t.Parallel()
	for name, rangeSize := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 200
			s := setup(t)
			s.insert(t, messyUsers(n))
			proxy := s.mongoProxy(t)
			proxy.Delay(batchDelay)
			s.env = append(s.env, rangeSize, "SYNC_BATCH_SIZE=2", "LOG_LEVEL=debug", s.mongoEnv(t, proxy))
			workers := []*process{s.startReady(t, "worker"), s.startReady(t, "worker")}
			id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			testbed.Eventually(t, "the run to be in its middle", func() bool {
				return len(workers[0].log(batchBegun, nil))+len(workers[1].log(batchBegun, nil)) > 10
			})
			proxy.Down()
			time.Sleep(away) // the outage
			proxy.Up()
			s.wantNoAttempt(t, id, waitLimit, n)
			waited := 0
			for _, w := range workers {
				waited += len(w.log("Database unreachable, trying again", nil))
				w.mustNotLog(t, "Recovered run from a dead worker")
				w.stop(t)
			}
			if waited == 0 {
				t.Error("no log says that the database was unreachable")
			}
		})
	}
}

// Redis is gone for so long that every lease expires, in the middle of a run.
func TestSlowRedisAway(t *testing.T) {
	t.Parallel()
	for name, rangeSize := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 300
			s := setup(t)
			s.insert(t, messyUsers(n))
			proxy := testbed.NewProxy(t, s.redis.Addr)
			mongo := s.mongoProxy(t)
			mongo.Delay(batchDelay)
			s.env = append(append(s.env, redisEnv(proxy.Addr)...), rangeSize, "SYNC_BATCH_SIZE=2", "LOG_LEVEL=debug", s.mongoEnv(t, mongo))
			all := []*process{s.startReady(t, "api"), s.startReady(t, "scheduler"), s.startReady(t, "worker"), s.startReady(t, "worker")}
			id := s.trigger(t, `{"syncType": "full"}`)
			testbed.Eventually(t, "the run to be in its middle", func() bool {
				return len(all[2].log(batchBegun, nil))+len(all[3].log(batchBegun, nil)) > 10
			})
			proxy.Down()
			for began := time.Now(); time.Since(began) < away; time.Sleep(500 * time.Millisecond) { // the outage
				asked := time.Now()
				status, body := s.request(t, http.MethodPost, "/jobs/trigger/"+userSync, "")
				if took := time.Since(asked); status != http.StatusServiceUnavailable || took > 2*time.Second {
					t.Errorf("without Redis: %d %s after %s, want a 503 within 2 s", status, body, took)
				}
			}
			proxy.Up()
			s.wantNoAttempt(t, id, rangeRecoveryLimit+waitLimit, n)
			next := s.trigger(t, `{"syncType": "full"}`)
			s.wantNoAttempt(t, next, waitLimit, n)
			for _, p := range all {
				p.stop(t)
			}
		})
	}
}

// Schedulers start, stop and are killed, now and then all at once, while workers take every run. Every tick is enqueued
// once; after a time without a scheduler, the latest one soon is.
func TestSlowTicksWhileSchedulersDie(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	s := setup(t)
	const interval = 2 * time.Second
	s.env = append(s.env, "USER_SYNC_INTERVAL=2s", "JOB_KEEP_COMPLETED=1000")
	worker := s.startReady(t, "worker")
	schedulers := []*process{s.startReady(t, "scheduler"), s.startReady(t, "scheduler"), s.startReady(t, "scheduler")}
	began := time.Now()
	type gap struct{ from, to time.Time }
	var gaps []gap // without any scheduler
	for time.Since(began) < time.Minute {
		time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
		if random.IntN(6) == 0 {
			g := gap{from: time.Now()}
			for _, p := range schedulers {
				p.Kill()
			}
			time.Sleep(time.Duration(random.Int64N(int64(7 * time.Second))))
			for i := range schedulers {
				schedulers[i] = s.startReady(t, "scheduler")
				if i == 0 {
					g.to = time.Now()
				}
			}
			gaps = append(gaps, g)
			continue
		}
		i := random.IntN(len(schedulers))
		if random.IntN(2) == 0 {
			schedulers[i].Kill()
		} else {
			schedulers[i].stop(t)
		}
		schedulers[i] = s.startReady(t, "scheduler")
	}
	time.Sleep(5 * time.Second) // the limit for an overdue tick
	ended := time.Now()
	for _, p := range append(schedulers, worker) {
		p.stop(t)
	}
	infos, err := s.inspector.ListCompletedTasks(userSync, asynq.PageSize(1000))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(map[time.Time]bool)
	for _, info := range infos {
		tickTime := parseID(t, info.ID).Reference
		if ran[tickTime] {
			t.Errorf("the tick at %s ran twice", tickTime)
		}
		ran[tickTime] = true
	}
	due, missed := 0, 0
	for tickTime := began.Truncate(interval).Add(interval); tickTime.Before(ended.Add(-5 * time.Second)); tickTime = tickTime.Add(interval) {
		due++
		if ran[tickTime.UTC()] {
			continue
		}
		// A tick is missing rightly only if a later one was overdue, too, when a scheduler came back. A scheduler that is
		// killed just as it enqueues leaves the tick to the others, or to the next one that starts.
		excused := slices.ContainsFunc(gaps, func(g gap) bool {
			return !tickTime.Before(g.from.Add(-2*time.Second)) && !tickTime.Add(interval).After(g.to.Add(2*time.Second))
		})
		if !excused {
			missed++
			t.Errorf("the tick at %s was missed; without a scheduler: %v", tickTime, gaps)
		}
	}
	t.Logf("%d ticks due, %d ran, %d missed, %d times without a scheduler", due, len(ran), missed, len(gaps))
	if len(ran) < due/2 {
		t.Errorf("%d of %d ticks ran", len(ran), due)
	}
}

// After 10,000 jobs Redis holds the kept ones, and a constant number of other keys.
func TestSlowRedisMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const number = 10_000
	s := setup(t)
	registry := codex.Registry()
	client := asynq.NewClientFromRedisClient(s.rdb)
	var enqueueing errgroup.Group
	enqueueing.SetLimit(8)
	for i := range number {
		enqueueing.Go(func() error {
			def, _ := registry.Lookup(registry.Names()[i%3])
			payload, err := def.EncodePayload(&tasks.SyncPayload{SyncType: tasks.SyncFull})
			if i%10 == 0 {
				payload = []byte("poison") // so that some fail
			}
			if err == nil {
				_, err = client.Enqueue(def.NewTask(tasks.TriggerID(def.Name, time.Now()), payload, nil))
			}
			return err
		})
	}
	if err := enqueueing.Wait(); err != nil {
		t.Fatal(err)
	}
	w := s.startReady(t, "worker")
	testbed.Within(t, 6*time.Minute, "the end of all jobs", func() bool {
		for _, name := range registry.Names() {
			info, err := s.inspector.GetQueueInfo(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Size != 30 || info.Completed != 10 || info.Archived != 20 {
				return false
			}
		}
		return true
	})
	w.stop(t)
	keys, err := s.rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, key := range keys {
		n, err := s.rdb.MemoryUsage(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		bytes += n
	}
	t.Logf("%d keys and %d bytes are left", len(keys), bytes)
	// 30 of each of three types, and for each a few lists, counters and locks.
	if len(keys) > 3*30+60 || bytes > 256<<10 {
		slices.Sort(keys)
		t.Errorf("%d keys and %d bytes are left: %v", len(keys), bytes, keys)
	}
}

// An acknowledged trigger is run, although the API, Redis and the worker are killed right after the answer.
func TestSlowNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	server := startDurableRedis(t)
	s.useRedis(t, server)
	s.env = append(s.env, "JOB_KEEP_COMPLETED=1000", "JOB_KEEP_FAILED=1000") // they are looked at in the end
	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	for round := range 6 {
		api, worker := s.startReady(t, "api"), s.startReady(t, "worker")
		var asking errgroup.Group
		for i := range 4 {
			asking.Go(func() error {
				for range 3 {
					body := fmt.Sprintf(`{"syncType": %q}`, []string{tasks.SyncFull, tasks.SyncIncremental}[i%2])
					id, err := s.tryTrigger(t, []string{"user-sync", "project-sync", "issue-sync"}[i%3], body)
					if err != nil {
						return err
					}
					mu.Lock()
					acknowledged[id] = true
					mu.Unlock()
				}
				return nil
			})
		}
		if err := asking.Wait(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(2 * time.Second)) // at any moment: some completed, some active, some waiting
		order := []func(){api.Kill, worker.Kill, server.kill}
		for _, i := range rand.Perm(3) {
			order[i]()
		}
		t.Logf("round %d: %d jobs acknowledged", round, len(acknowledged))
		server.restart(t)
	}
	w := s.startReady(t, "worker")
	testbed.Within(t, 2*rangeRecoveryLimit+waitLimit, "the end of all jobs", func() bool {
		for id := range acknowledged {
			info, err := s.inspector.GetTaskInfo(parseID(t, id).Job, id)
			if errors.Is(err, asynq.ErrTaskNotFound) {
				t.Fatalf("%s was acknowledged and is lost", id)
			}
			if err != nil {
				t.Fatal(err)
			}
			if info.State == asynq.TaskStateArchived {
				t.Fatalf("%s failed: %s", id, info.LastErr)
			}
			if info.State != asynq.TaskStateCompleted {
				return false
			}
		}
		return true
	})
	w.stop(t)
}

// useRedis makes the system's processes, and the test, use that server.
func (s *system) useRedis(t *testing.T, r *redisServer) {
	t.Helper()
	s.env = append(append(s.env, redisEnv(r.addr)...), "REDIS_DB=0", "REDIS_PASSWORD=")
	s.redis = redisconn.Options{Addr: r.addr}
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
