//go:build slow

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// recoveryLimit bounds the time until a run whose worker was killed goes on: the task's lease (30 s), 30 s of grace, and the
// next look of a worker. The rest is for a busy machine.
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
	// By then there is a checkpoint, and behind it users that the next worker visits again.
	first.waitForLog(t, batchBegun, attrs{"skip": 150.0})
	first.Kill()
	killed := time.Now()
	first.mustNotLog(t, runCompleted)

	// The others go on meanwhile: only this run stands still.
	quick := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncIncremental})
	s.result(t, quick)

	wantComplete(t, s.resultWithin(t, recoveryLimit+waitLimit, id), n)
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

// rangeRecoveryLimit bounds the time until a range whose worker was killed goes on: the task's lease (30 s), 30 s of grace,
// and the next look of a worker.
const rangeRecoveryLimit = 75 * time.Second

// Workers are killed at random in the middle of a run that they share. The others go on with their own ranges, and then with
// the ranges of the dead workers. No user is lost or counted twice, no attempt is charged, and nothing is left in Redis.
func TestSlowKilledWorkersOfASharedRun(t *testing.T) {
	t.Parallel()
	for range 2 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 4))
			const n = 900
			s := setup(t)
			s.insert(t, messyUsers(n))
			before := s.snapshot(t)
			proxy := s.mongoProxy(t)
			proxy.Delay(batchDelay)
			s.env = append(s.env, "SYNC_RANGE_SIZE=60", "SYNC_BATCH_SIZE=5", s.mongoEnv(t, proxy))
			workers := []*process{s.startReady(t, "worker"), s.startReady(t, "worker"), s.startReady(t, "worker")}
			since := time.Now().Truncate(time.Millisecond)
			id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			testbed.Eventually(t, "the run to be shared", func() bool {
				for _, w := range workers {
					if len(w.log("Sharing the run with all workers", nil)) > 0 {
						return true
					}
				}
				return false
			})
			for range 2 {
				time.Sleep(rand.N(700 * time.Millisecond)) // any moment of the run
				i := random.IntN(len(workers))
				workers[i].Kill()
				workers[i] = s.startReady(t, "worker")
			}
			killed := time.Now()
			result := s.resultWithin(t, rangeRecoveryLimit+waitLimit, id)
			result.Duration = 0 // it includes the wait for the dead workers' ranges
			wantComplete(t, result, n)
			if took := time.Since(killed); took > rangeRecoveryLimit+20*time.Second { // and the work that remains
				t.Errorf("the run ended %s after its workers were killed", took)
			} else {
				t.Logf("the run ended %s after its workers were killed", took.Round(time.Second))
			}
			s.wantStamped(t, before, id.Reference, since)
			info, err := s.inspector.GetTaskInfo(userSync, id.String())
			if err != nil || info.Retried != 0 {
				t.Errorf("the run: %+v, %v; want it completed without a retry", info, err)
			}
			for _, w := range workers {
				for _, line := range w.log("Starting range", nil) {
					if line["attempt"] != 1.0 {
						t.Errorf("an attempt was charged: %v", line)
					}
				}
			}
			testbed.Eventually(t, "nothing of the run and its ranges to be left in Redis", func() bool {
				keys, err := s.rdb.Keys(t.Context(), "*"+id.String()+"*").Result()
				return err == nil && len(keys) == 1 && strings.HasSuffix(keys[0], ":t:"+id.String()) // the task of a kept run
			})
			for _, w := range workers {
				w.stop(t)
			}
		})
	}
}
