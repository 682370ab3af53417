//go:build slow

package e2e_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	// endpointUsers are in ranges, so that both workers take part.
	endpointUsers = 240
	endpointFull  = `{"syncType":"full","batchSize":5}`
	// endpointTime is how long an answer takes.
	endpointTime = 150 * time.Millisecond
)

// setupEndpoint starts an API, two workers, and their endpoint behind a proxy.
func setupEndpoint(t *testing.T, env ...string) (s *system, e *endpointServer, proxy *testbed.Proxy, workers []*process) {
	t.Helper()
	s, e = setup(t), startEndpoint(t)
	s.insert(t, messyUsers(endpointUsers))
	e.reset(firstSecret, func(question) reply { return reply{late: endpointTime} })
	at, err := url.Parse(e.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy = testbed.NewProxy(t, at.Host)
	at.Host = proxy.Addr
	s.env = append(s.env, "USER_SYNC_URL="+at.String(), "USER_SYNC_SECRET="+firstSecret, "SYNC_RANGE_SIZE=60", "SYNC_WRITERS=2", "JOB_ATTEMPTS=1")
	s.env = append(s.env, env...)
	s.startReady(t, "api")
	return s, e, proxy, []*process{s.startReady(t, "worker"), s.startReady(t, "worker")}
}

// wantAllAnswered checks a run that has ended well, and each of its users.
func (s *system) wantAllAnswered(t *testing.T, e *endpointServer, id tasks.RunID, result tasks.SyncResult) {
	t.Helper()
	result.Duration = 0 // it includes the waits
	wantComplete(t, result, endpointUsers)
	if got := s.wantOnlyAnswered(t, e, id); got != endpointUsers {
		t.Errorf("%d users are stamped, want all", got)
	}
	if info, err := s.inspector.GetTaskInfo(userSync, id.String()); err != nil || info.Retried != 0 {
		t.Errorf("the run is %+v, %v; want it completed in its first attempt", info, err)
	}
	again := 0
	for _, q := range e.requests() {
		if q.Attempt != 1 || q.RunID != id.String() {
			t.Errorf("it was asked %+v", q)
		}
		again += len(q.Records)
	}
	t.Logf("%d users were posted again", again-endpointUsers)
}

// A worker that is killed in a run costs time only.
func TestSlowEndpointKilledWorker(t *testing.T) {
	t.Parallel()
	s, e, _, workers := setupEndpoint(t)
	id := s.trigger(t, endpointFull)
	killed := -1
	testbed.Eventually(t, "a worker in the middle of a range", func() bool {
		for i, w := range workers {
			if len(w.log("Starting range", nil)) > len(w.log("Range completed", nil)) && len(e.requests()) > 10 {
				killed = i
				return true
			}
		}
		return false
	})
	workers[killed].Kill()
	workers[killed] = s.startReady(t, "worker")
	s.wantAllAnswered(t, e, id, s.resultWithin(t, rangeRecoveryLimit+waitLimit, id))
	rescued := 0
	for _, w := range workers {
		rescued += len(w.log("Recovered range from a dead worker", nil)) + len(w.log("Recovered run from a dead worker", nil))
	}
	if rescued == 0 {
		t.Error("nothing was rescued")
	}
}

// A run waits for an endpoint that is away for a minute, and is snoozed when that takes longer than its retry budget.
func TestSlowEndpointAway(t *testing.T) {
	t.Parallel()
	s, e, proxy, _ := setupEndpoint(t, "SYNC_PATIENCE=15s")
	id := s.trigger(t, endpointFull)
	testbed.Eventually(t, "some requests", func() bool { return len(e.requests()) > 10 })
	proxy.Down()
	gone := time.Now()
	testbed.Eventually(t, "the run to say what it waits for", func() bool {
		_, data := s.request(t, "GET", "/jobs/"+id.String(), "")
		return strings.Contains(string(data), "the endpoint cannot be reached")
	})
	testbed.Eventually(t, "a range to be snoozed", func() bool {
		info, err := s.inspector.GetQueueInfo(userSync + ":ranges")
		return err == nil && info.Retry > 0
	})
	if h, status := s.health(t); status != 200 || h.Jobs.Workers != 2 {
		t.Errorf("health says %+v", h)
	}
	testbed.Within(t, 2*time.Minute, "a minute without the endpoint", func() bool { return time.Since(gone) > time.Minute })
	before := len(e.requests())
	proxy.Up()
	result := s.resultWithin(t, 3*time.Minute, id)
	if len(e.requests()) == before {
		t.Error("the run had ended before the endpoint was back")
	}
	s.wantAllAnswered(t, e, id, result)
}
