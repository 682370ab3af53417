//go:build slow

package e2e_test

import (
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// recoveryLimit is when a run whose worker was killed goes on, at the latest: asynq waits for the task's lease (30 s),
// for as long again, and for its recoverer's next round (60 s); this system adds less than a second.
const recoveryLimit = 150 * time.Second

// A worker that is killed in the middle of a run costs time, but no attempt, and no user is lost or counted twice.
func TestSlowKilledWorker(t *testing.T) {
	t.Parallel()
	const n = 500
	s := setup(t)
	s.insert(t, messyUsers(n))
	batchSize := 1
	id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull, BatchSize: &batchSize})

	proxy := s.mongoProxy(t)
	proxy.Delay(batchDelay)
	first := s.startReady(t, "worker", "LOG_LEVEL=debug", s.mongoEnv(t, proxy))
	started := first.waitForLog(t, runStarted, attrs{"jobId": id.String()})
	second := s.startReady(t, "worker")
	// A checkpoint is there by then, and users behind it that the next worker visits again.
	first.waitForLog(t, batchBegun, attrs{"skip": 150.0})
	first.kill()
	killed := time.Now()
	first.mustNotLog(t, runCompleted)

	// The others go on meanwhile: only this run stands still.
	quick := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncIncremental})
	s.result(t, quick)

	wantComplete(t, s.resultWithin(t, recoveryLimit+patience, id), n)
	if took := time.Since(killed); took > recoveryLimit {
		t.Errorf("the run went on and ended %s after its worker was killed, want at most %s", took, recoveryLimit)
	} else {
		t.Logf("the run ended %s after its worker was killed", took.Round(time.Second))
	}
	second.waitForLog(t, "Recovered run from a dead worker", attrs{"level": "WARN", "jobId": id.String(), "recoveries": 1.0})
	resumed := second.waitForLog(t, runStarted, attrs{"jobId": id.String(), "attempt": 1.0, "reference": started["reference"]})
	if got := resumed["resumedAfter"].(float64); got == 0 || got >= n {
		t.Errorf("the second worker resumed after %v users, want some of %d", got, n)
	}
	info, err := s.inspector.GetTaskInfo(userSync, id.String())
	if err != nil || info.Retried != 0 {
		t.Errorf("the recovered run: %+v, %v; want it completed without a retry", info, err)
	}
	for _, user := range s.snapshot(t) { // the quick run was later
		if stamp, ok := user.Lookup(lastSynced).TimeOK(); !ok || stamp.Before(id.Reference) {
			t.Errorf("%s has lastSynced %v, want %s or later", user.Lookup("_id"), user.Lookup(lastSynced), id.Reference)
		}
	}
	second.stop(t)
}
