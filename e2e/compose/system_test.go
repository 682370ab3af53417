//go:build compose

package compose_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	userSync     = "user-sync"
	runStarted   = "Starting user sync job"
	runCompleted = "User sync job completed successfully"
	runGivenBack = "Run given back, it will go on where it got to"
	runRecovered = "Recovered run from a dead worker"

	// full is a full sync. long takes a while, because it saves and writes after each user.
	full = `{"syncType": "full"}`
	long = `{"syncType": "full", "batchSize": 1}`

	// healthLimit is how long the system may take to be healthy again after a fault.
	healthLimit = 30 * time.Second
	// recoveryLimit is when a run whose worker was killed has ended: 30 s of its lease, 30 s of grace, and the run itself on
	// a busy machine.
	recoveryLimit = 150 * time.Second
)

// system is the deployment as its clients see it, and the record of the requests.
type system struct {
	*project
	rdb        *redis.Client
	inspector  *asynq.Inspector
	collection *mongo.Collection
	before     map[string]bson.Raw // the users as they were inserted

	interval time.Duration
	since    time.Time // from here on every tick counts
	copied   time.Time // when Redis was copied that was restored before since: it knows no later tick

	mu    sync.Mutex
	acked map[string]bool // IDs of the runs that triggers were answered with
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{project: newProject(t), interval: 30 * time.Second, acked: make(map[string]bool)}
	s.env["USER_SYNC_INTERVAL"] = s.interval.String()
	s.env["JOB_KEEP_COMPLETED"] = "1000" // the history of the whole test
	// Small commands on few connections suit any server that speaks MongoDB's protocol.
	s.env["MONGODB_URI"] = "mongodb://mongo:27017/?maxPoolSize=1"
	s.env["SYNC_BULK_SIZE"], s.env["SYNC_WRITERS"] = "10", "1"
	s.log = follow(t, s.project)
	s.rdb = redis.NewClient(&redis.Options{
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx, "redis", "6379") },
		CredentialsProvider: func() (string, string) {
			password, _ := os.ReadFile(filepath.Join(s.dir, "secrets", "redis_password")) // none at first
			return "", string(password)
		},
	})
	t.Cleanup(func() { _ = s.rdb.Close() })
	s.inspector = asynq.NewInspectorFromRedisClient(s.rdb)
	s.collection = s.users(t)
	return s
}

// request sends JSON, "" for none, and decodes the answer.
func (s *system) request(ctx context.Context, method, path, body string, v any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:"+s.port+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if keys, err := os.ReadFile(filepath.Join(s.dir, "secrets", "api_keys")); err == nil { // none at first
		_, key, _ := strings.Cut(strings.TrimSpace(string(keys)), ":write:")
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return response.StatusCode, fmt.Errorf("%s %s: %w: %s", method, path, err, data)
	}
	return response.StatusCode, nil
}

// tryTrigger triggers a user sync, and remembers the run of the answer, if there is one.
func (s *system) tryTrigger(ctx context.Context, body string) (id string, err error) {
	var answer struct {
		Success bool
		Data    struct{ JobID string }
	}
	status, err := s.request(ctx, http.MethodPost, "/jobs/trigger/"+userSync, body, &answer)
	if err != nil || status != http.StatusOK || !answer.Success {
		return "", fmt.Errorf("triggering %s: %d, %w", body, status, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[answer.Data.JobID] = true
	return answer.Data.JobID, nil
}

func (s *system) trigger(t *testing.T, body string) string {
	t.Helper()
	id, err := s.tryTrigger(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// keepTriggering triggers long runs until stop is called, which returns how many triggers were accepted and how many refused.
func (s *system) keepTriggering(t *testing.T) (stop func() (accepted, refused int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var triggering sync.WaitGroup
	var accepted, refused int
	triggering.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.tryTrigger(ctx, long); err == nil {
				accepted++
			} else if ctx.Err() == nil {
				refused++
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	stop = sync.OnceValues(func() (int, int) {
		cancel()
		triggering.Wait()
		return accepted, refused
	})
	t.Cleanup(func() { stop() })
	return stop
}

// health has the fields of GET /health that the test checks.
type health struct {
	Status string
	Jobs   struct {
		Initialized         bool
		Workers, Schedulers int
	}
}

// waitUntilHealthy waits until the API reports a healthy system with so many workers and both schedulers, and the engine
// reports every container as healthy.
func (s *system) waitUntilHealthy(t *testing.T, limit time.Duration, workers int) {
	t.Helper()
	started := time.Now()
	var said string
	deadline := started.Add(limit)
	for {
		var h health
		status, err := s.request(t.Context(), http.MethodGet, "/health", "", &h)
		containers := s.docker(t, "ps", "-a", "--filter", "label=com.docker.compose.project="+s.name, "--format", "{{.Names}} {{.Status}}")
		well := strings.Count(containers, "(healthy)") == 2+1+2+workers && strings.Count(containers, "\n")+1 == 2+1+2+workers
		if err == nil && status == http.StatusOK && h.Status == "OK" && h.Jobs.Initialized && h.Jobs.Workers == workers &&
			h.Jobs.Schedulers == 2 && well {
			t.Logf("healthy after %.1f s, with %d workers", time.Since(started).Seconds(), workers)
			return
		}
		said = fmt.Sprintf("GET /health: %d %+v %v\n%s", status, h, err, containers)
		if time.Now().After(deadline) {
			t.Fatalf("not healthy within %s with %d workers: %s", limit, workers, said)
		}
		time.Sleep(poll)
	}
}

// startLong triggers a run that takes a while. Once it has some progress, startLong returns its ID and the container that
// works on it.
func (s *system) startLong(t *testing.T) (id, container string) {
	t.Helper()
	id = s.trigger(t, long)
	container = s.log.wait(t, 1, runStarted, attrs{"jobId": id})[0].container
	testbed.Within(t, waitLimit, "progress of "+id, func() bool {
		var answer struct{ Data struct{ Progress int } }
		status, err := s.request(t.Context(), http.MethodGet, "/jobs/"+id, "", &answer)
		return err == nil && status == http.StatusOK && answer.Data.Progress > 0
	})
	return id, container
}

// wantActive checks that the run is still active.
func (s *system) wantActive(t *testing.T, id string) {
	t.Helper()
	info, err := s.inspector.GetTaskInfo(userSync, id)
	if err != nil || info.State != asynq.TaskStateActive {
		t.Errorf("%s is no longer in progress: %+v, %v", id, info, err)
	}
}

// waitForResult waits until a run has completed, in its first attempt, and returns its result.
func (s *system) waitForResult(t *testing.T, limit time.Duration, id string) tasks.SyncResult {
	t.Helper()
	var info *asynq.TaskInfo
	testbed.Within(t, limit, "the completion of "+id, func() bool {
		var err error
		if info, err = s.inspector.GetTaskInfo(userSync, id); err != nil {
			if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
				t.Fatalf("%s was promised, and is lost", id)
			}
			return false // Redis is away
		}
		return info.State == asynq.TaskStateCompleted || info.State == asynq.TaskStateArchived
	})
	var result tasks.SyncResult
	if info.State != asynq.TaskStateCompleted || info.Retried != 0 || json.Unmarshal(info.Result, &result) != nil || !result.Success {
		t.Fatalf("%s ended as %+v, want it completed at its first attempt", id, info)
	}
	return result
}

// wantUpdated waits for the result of a full run over all users.
func (s *system) wantUpdated(t *testing.T, limit time.Duration, id string) {
	t.Helper()
	result := s.waitForResult(t, limit, id)
	if n := int64(len(s.before)); result.UsersUpdated != n || result.UsersProcessed != n || result.Errors != 0 {
		t.Errorf("%s: %+v, want %d users updated", id, result, n)
	}
	run, err := tasks.ParseRunID(id)
	if err != nil {
		t.Fatal(err)
	}
	wantStamped(t, s.collection, s.before, run.Reference)
}

// wantNothingLost checks, after a fault, that every acknowledged run has completed, that none is stuck, and that no tick was
// missed or enqueued twice.
func (s *system) wantNothingLost(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	var promised []string
	for id := range s.acked {
		promised = append(promised, id)
	}
	s.mu.Unlock()
	for _, id := range promised {
		s.waitForResult(t, recoveryLimit, id)
	}
	testbed.Within(t, recoveryLimit, "an instant at which no run is active, waits or is to be tried again", func() bool {
		info, err := s.inspector.GetQueueInfo(userSync)
		if err != nil {
			return false
		}
		if info.Archived > 0 {
			t.Fatalf("%d runs have failed", info.Archived)
		}
		return info.Active+info.Pending+info.Retry+info.Scheduled == 0
	})
	s.wantEveryTick(t)
	s.log.wantSound(t)
}

// wantEveryTick checks that each tick until now was enqueued exactly once, or served by a waiting run. A scheduler that was
// killed, or whose Redis was, may not have logged it: then the history has the run.
func (s *system) wantEveryTick(t *testing.T) {
	t.Helper()
	last := time.Now().Truncate(s.interval)
	var missed []string
	testbed.Within(t, healthLimit, "the tick of "+last.Format(time.TimeOnly), func() bool {
		missed = nil
		enqueued, served := s.ticks(t)
		for tickTime := s.since.Truncate(s.interval).Add(s.interval); !tickTime.After(last); tickTime = tickTime.Add(s.interval) {
			if enqueued[tickTime.UnixMilli()] == 0 && served[tickTime.UnixMilli()] == 0 {
				missed = append(missed, tickTime.Format(time.TimeOnly))
			}
		}
		// No earlier tick can come now.
		return !slices.Contains(missed, last.Format(time.TimeOnly))
	})
	if len(missed) > 0 {
		t.Errorf("the ticks of %q were missed", missed)
	}
	enqueued, served := s.ticks(t)
	t.Logf("ticks so far: %d enqueued, %d served by a run that waited", len(enqueued), len(served))
	for tickTime, times := range enqueued {
		at, most := time.UnixMilli(tickTime), 1
		if !s.copied.IsZero() && at.After(s.copied.Add(-time.Second)) && at.Before(s.since) {
			most = 2 // the restored Redis does not know that it was enqueued after the copy
		}
		if times > most {
			t.Errorf("the tick of %s was enqueued %d times", at.Format(time.TimeOnly), times)
		}
	}
}

// ticks returns, by tick time, how often a tick was enqueued and how often a waiting run served it.
func (s *system) ticks(t *testing.T) (enqueued, served map[int64]int) {
	t.Helper()
	enqueued, served = make(map[int64]int), make(map[int64]int)
	for msg, counts := range map[string]map[int64]int{
		"Tick enqueued": enqueued, "Overdue tick enqueued": enqueued,
		"Tick served by a run that still waits": served, "Overdue tick served by a run that still waits": served,
	} {
		for _, line := range s.log.find(msg, attrs{"job": userSync}) {
			tickTime, err := time.Parse(tasks.TimestampLayout, line.attrs["tick"].(string))
			if err != nil {
				t.Fatal(err)
			}
			counts[tickTime.UnixMilli()]++
		}
	}
	for _, id := range s.history(t) {
		run, err := tasks.ParseRunID(id)
		if err != nil {
			t.Fatal(err)
		}
		if tickTime := run.Reference.UnixMilli(); run.Scheduled() && enqueued[tickTime] == 0 {
			enqueued[tickTime] = 1
		}
	}
	return enqueued, served
}

// history returns the IDs of all runs that Redis knows.
func (s *system) history(t *testing.T) []string {
	t.Helper()
	var ids []string
	for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		s.inspector.ListPendingTasks, s.inspector.ListActiveTasks, s.inspector.ListRetryTasks,
		s.inspector.ListCompletedTasks, s.inspector.ListArchivedTasks,
	} {
		infos, err := list(userSync, asynq.PageSize(1000))
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			ids = append(ids, info.ID)
		}
	}
	return ids
}

// wantStopped checks that removed containers stopped by themselves, in time and with status 0. The last lines of a log can be lost
// when its container is removed, so the engine is asked for the end.
func (s *system) wantStopped(t *testing.T, containers []string) {
	t.Helper()
	for _, container := range containers {
		testbed.Within(t, waitLimit, "the end of "+container[:12], func() bool { return s.log.exit(container) != "" })
		if status := s.log.exit(container); status != "0" {
			t.Errorf("%s ended with status %s", container[:12], status)
		}
		if s.log.of(container, "Stopped before all was done") > 0 {
			t.Errorf("%s took too long to stop", container[:12])
		}
	}
}
