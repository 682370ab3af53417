package e2e_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	runStarted   = "Starting user sync job"
	usersCounted = "Users to sync"
	runCompleted = "User sync job completed successfully"
	userSynced   = "User synced successfully"
	batchBegun   = "Processing user batch"
)

// batchDelay makes a run slow enough to do something in the middle of it.
const batchDelay = 5 * time.Millisecond

func TestWholeSystem(t *testing.T) {
	t.Parallel()
	const n = 300
	s := setup(t)
	s.insert(t, messyUsers(n))
	before := s.snapshot(t)
	s.env = append(s.env, "USER_SYNC_INTERVAL=2s", "LOG_LEVEL=debug")

	s.startReady(t, "api")
	workers := []*process{s.startReady(t, "worker"), s.startReady(t, "worker")}
	testbed.Eventually(t, "a health check that misses a schedule only", func() bool {
		h, status := s.health(t)
		return status == http.StatusOK && !h.Jobs.Initialized && slices.Equal(h.Jobs.Missing, []string{"a live schedule"})
	})
	scheduler := s.startReady(t, "scheduler")
	testbed.Eventually(t, "a health check that sees all of the processes", func() bool {
		h, status := s.health(t)
		return status == http.StatusOK && h.Status == "OK" && h.Jobs.Initialized && h.Jobs.Workers == 2 && h.Jobs.Schedulers == 1
	})
	var status struct {
		Data struct {
			RepeatableJobs []struct {
				Key         string
				Every, Next int64
			}
		}
	}
	s.get(t, "/jobs/status", &status)
	if jobs := status.Data.RepeatableJobs; len(jobs) != 1 || jobs[0].Key != "user-sync:@every 2s" || jobs[0].Every != 2000 {
		t.Errorf("repeatable jobs: %+v", jobs)
	}

	// The run of a tick, at which every user is due. Which of the workers has it is left to chance.
	tick := scheduler.waitForLog(t, "Tick enqueued", nil)
	scheduler.stop(t)
	wantComplete(t, s.result(t, parseID(t, tick["jobId"].(string))), n)
	s.waitUntilIdle(t)
	for _, w := range workers {
		for _, line := range w.log(usersCounted, nil) {
			if line["totalUsers"] != float64(n) || line["syncType"] != tasks.SyncIncremental {
				t.Errorf("a scheduled run: %v, want %d users", line, n)
			}
		}
	}

	begun := time.Now().Truncate(time.Millisecond)
	id := s.trigger(t, `{"syncType": "full", "batchSize": 70}`)
	wantComplete(t, s.result(t, id), n)
	s.wantStamped(t, before, id.Reference, begun)
	s.wantOnDashboard(t, id, n)

	// What the log says of that run, in the order in which it happened.
	ran := slices.IndexFunc(workers, func(w *process) bool { return len(w.log(runStarted, attrs{"jobId": id.String()})) > 0 })
	if ran < 0 {
		t.Fatal("no worker logged the run that was triggered")
	}
	of := attrs{"jobId": id.String(), "job": userSync, "syncType": tasks.SyncFull, "service": "worker"}
	w := workers[ran]
	w.waitForLog(t, runCompleted, of)
	for _, want := range []struct {
		msg, level string
		times      int
		attrs      attrs
	}{
		{runStarted, "INFO", 1, attrs{"attempt": 1.0, "reference": id.Reference.Format(tasks.TimestampLayout)}},
		{usersCounted, "INFO", 1, attrs{"totalUsers": float64(n)}},
		{batchBegun, "DEBUG", 4, attrs{"batchSize": 70.0}},
		{batchBegun, "DEBUG", 1, attrs{"batchSize": 20.0, "skip": 280.0}},
		{userSynced, "DEBUG", n, nil},
		{userSynced, "DEBUG", 1, attrs{"username": "user.0"}},
		{runCompleted, "INFO", 1, attrs{"usersProcessed": float64(n), "usersUpdated": float64(n), "errors": 0.0}},
	} {
		all := attrs{"level": want.level}
		for _, more := range []attrs{of, want.attrs} {
			for name, value := range more {
				all[name] = value
			}
		}
		if got := len(w.log(want.msg, all)); got != want.times {
			t.Errorf("%q %v was logged %d times, want %d", want.msg, all, got, want.times)
		}
	}
	if _, ok := w.log(runCompleted, of)[0]["duration"].(float64); !ok {
		t.Error("the completed run was logged without its duration")
	}
	for _, line := range w.log(userSynced, of) {
		if id, ok := line["userId"].(string); !ok || id == "" {
			t.Fatalf("a user was logged without its _id: %v", line)
		}
	}
	for _, w := range workers {
		w.mustNotLog(t, "Recovered run from a dead worker")
		w.mustNotLog(t, "User sync job failed")
		w.stop(t)
	}
}

// wantOnDashboard checks what asynqmon shows of a completed run.
func (s *system) wantOnDashboard(t *testing.T, id tasks.RunID, n int) {
	t.Helper()
	var list struct {
		Tasks []struct {
			ID, Type, State, Result string
		}
	}
	if status := s.get(t, "/dashboard/api/queues/user-sync/completed_tasks?size=100", &list); status != http.StatusOK {
		t.Fatalf("the dashboard answered with %d", status)
	}
	for _, task := range list.Tasks {
		if task.ID != id.String() {
			continue
		}
		var result tasks.SyncResult
		if err := json.Unmarshal([]byte(task.Result), &result); err != nil {
			t.Fatalf("the dashboard's result %q: %v", task.Result, err)
		}
		wantComplete(t, result, n)
		return
	}
	t.Errorf("the dashboard does not show %s among %+v", id, list.Tasks)
}

// Every scheduled run finds users. With a cutoff taken from the time of the writes every second one would find none.
func TestEveryTickFindsEveryUser(t *testing.T) {
	t.Parallel()
	const (
		n        = 20
		interval = 2 * time.Second
		ticks    = 3
	)
	s := setup(t)
	s.insert(t, messyUsers(n))
	s.env = append(s.env, "USER_SYNC_INTERVAL="+interval.String())
	w := s.startReady(t, "worker")
	s.startReady(t, "scheduler")

	var references []time.Time
	testbed.Eventually(t, "three runs of ticks that follow each other", func() bool {
		references = references[:0]
		for _, line := range w.log(runCompleted, nil) {
			id := parseID(t, line["jobId"].(string))
			if line["usersProcessed"] != float64(n) || line["usersUpdated"] != float64(n) {
				t.Fatalf("the run of the tick at %s found %v users and updated %v, want %d; ticks before: %v",
					id.Reference, line["usersProcessed"], line["usersUpdated"], n, references)
			}
			if last := len(references) - 1; last >= 0 && id.Reference.Sub(references[last]) != interval {
				references = references[:0] // the machine is busy, and a tick was served by the run of the one before
			}
			references = append(references, id.Reference)
		}
		return len(references) >= ticks
	})
}

// A worker that is asked to stop releases its run, and another one goes on with it.
func TestRunMovesToAnotherWorker(t *testing.T) {
	t.Parallel()
	const n = 200
	s := setup(t)
	s.insert(t, messyUsers(n))
	before := s.snapshot(t)
	begun := time.Now().Truncate(time.Millisecond)
	batchSize := 1
	id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull, BatchSize: &batchSize})

	proxy := s.mongoProxy(t)
	proxy.Delay(4 * batchDelay) // so that the run is far from its end when the test comes to freeze it
	first := s.startReady(t, "worker", "LOG_LEVEL=debug", s.mongoEnv(t, proxy))
	first.waitForLog(t, batchBegun, attrs{"skip": 20.0})
	proxy.Freeze() // so that the signal comes in the middle of a batch
	first.terminate(t)
	first.waitForLog(t, "Stopping", nil)
	proxy.Thaw()
	first.waitForExit(t)
	first.waitForLog(t, "Run given back, it will go on where it got to", attrs{"jobId": id.String()})

	info, err := s.inspector.GetTaskInfo(userSync, id.String())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.String() != "pending" || info.Retried != 0 || info.LastErr != "" {
		t.Errorf("the released run is %s, retried %d times, last error %q; want it pending, as new", info.State, info.Retried, info.LastErr)
	}
	if keys, err := s.rdb.Keys(t.Context(), "codex-jobs:{user-sync}:run:*").Result(); err != nil || len(keys) != 1 {
		t.Errorf("states of runs in Redis: %v, %v; want that of the run", keys, err)
	}

	second := s.startReady(t, "worker", "LOG_LEVEL=debug")
	wantComplete(t, s.result(t, id), n)
	s.wantStamped(t, before, id.Reference, begun)
	resumed := second.waitForLog(t, runStarted, attrs{"jobId": id.String(), "attempt": 1.0})
	if got := resumed["resumedAfter"].(float64); got < 20 || got >= n {
		t.Errorf("the second worker resumed after %v users, want some of %d", got, n)
	}
	second.waitForLog(t, runCompleted, attrs{"usersProcessed": float64(n)})
	synced := make(map[any]int)
	for _, p := range []*process{first, second} {
		p.mustNotLog(t, "Recovered run from a dead worker")
		for _, line := range p.log(userSynced, nil) {
			synced[line["userId"]]++
		}
	}
	for id, times := range synced {
		if times != 1 {
			t.Errorf("user %v was synced %d times", id, times)
		}
	}
	if len(synced) != n {
		t.Errorf("%d users were logged as synced, want %d", len(synced), n)
	}
	if keys, err := s.rdb.Keys(t.Context(), "codex-jobs:{user-sync}:run:*").Result(); err != nil || len(keys) != 0 {
		t.Errorf("states of runs in Redis after the end: %v, %v", keys, err)
	}
	second.stop(t)
}

// The processes start before their servers.
func TestStartBeforeServers(t *testing.T) {
	t.Parallel()
	const n = 30
	s := setup(t)
	s.insert(t, messyUsers(n))
	redis, mongo := testbed.NewProxy(t, s.redis.Addr), s.mongoProxy(t)
	redis.Down()
	mongo.Down()
	s.env = append(append(s.env, redisEnv(redis.Addr)...), s.mongoEnv(t, mongo))

	api, scheduler, worker := s.startReady(t, "api"), s.start(t, "scheduler"), s.start(t, "worker")
	for _, p := range []*process{api, scheduler, worker} {
		waits := p.waitForLogs(t, 3, "Waiting for Redis", attrs{"level": "WARN"})
		if waits[0]["retryIn"] != "250ms" || waits[1]["retryIn"] != "500ms" || waits[2]["retryIn"] != "1s" {
			t.Errorf("%s does not wait longer each time: %v", p, waits)
		}
	}
	if h, status := s.health(t); status != http.StatusServiceUnavailable || h.Status != "DEGRADED" ||
		h.Redis.Status != "disconnected" || h.Database.Status != "disconnected" || h.Jobs.Initialized {
		t.Errorf("health without servers: %d %+v", status, h)
	}
	for path, want := range map[string]int{
		"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/jobs/status": http.StatusServiceUnavailable,
	} {
		if status, body := s.request(t, http.MethodGet, path, ""); status != want {
			t.Errorf("GET %s without servers: %d %s, want %d", path, status, body, want)
		}
	}

	redis.Up()
	scheduler.waitForLog(t, "Scheduler ready", nil)
	worker.waitForLog(t, "Waiting for MongoDB", attrs{"level": "WARN"})
	worker.mustNotLog(t, "Worker ready")
	testbed.Eventually(t, "the API is ready", func() bool {
		status, _ := s.request(t, http.MethodGet, "/readyz", "")
		return status == http.StatusOK
	})
	id := s.trigger(t, `{"syncType": "full"}`)

	mongo.Up()
	worker.waitForLog(t, "Worker ready", nil)
	wantComplete(t, s.result(t, id), n)
	testbed.Eventually(t, "a health check without complaints", func() bool {
		h, status := s.health(t)
		return status == http.StatusOK && h.Status == "OK" && h.Jobs.Initialized
	})
	for _, p := range []*process{api, scheduler, worker} {
		p.waitForLog(t, "Redis reachable again", attrs{"level": "INFO"})
		p.stop(t)
	}
}

// Redis goes away and comes back while processes run.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	const n = 30
	s := setup(t)
	s.insert(t, messyUsers(n))
	proxy := testbed.NewProxy(t, s.redis.Addr)
	s.env = append(append(s.env, redisEnv(proxy.Addr)...), "USER_SYNC_INTERVAL=2s")
	api, scheduler, worker := s.startReady(t, "api"), s.startReady(t, "scheduler"), s.startReady(t, "worker")
	all := []*process{api, scheduler, worker}
	worker.waitForLog(t, runCompleted, nil)

	proxy.Down()
	begun := time.Now()
	status, body := s.request(t, http.MethodPost, "/jobs/trigger/user-sync", "")
	if took := time.Since(begun); status != http.StatusServiceUnavailable || took > 2*time.Second {
		t.Errorf("a trigger without Redis: %d %s after %s, want 503 within 2 s", status, body, took)
	}
	for _, p := range all {
		p.waitForLog(t, "Redis unreachable, reconnecting", attrs{"level": "WARN"})
	}
	scheduler.waitForLog(t, "Tick not enqueued yet, will be caught up", attrs{"level": "WARN"})

	proxy.Up()
	testbed.Eventually(t, "the API serves again", func() bool {
		status, _ := s.request(t, http.MethodGet, "/jobs/status", "")
		return status == http.StatusOK
	})
	// A tick's run may have been enqueued in the meantime; a full one has not.
	id := s.trigger(t, `{"syncType": "full"}`)
	wantComplete(t, s.result(t, id), n)
	for _, p := range all {
		p.waitForLog(t, "Redis reachable again", attrs{"level": "INFO"})
	}
	ticks := len(scheduler.log("Tick enqueued", nil))
	scheduler.waitForLogs(t, ticks+1, "Tick enqueued", nil)
	for _, p := range all {
		p.stop(t)
	}
}
