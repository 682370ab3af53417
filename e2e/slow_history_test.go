//go:build slow

package e2e_test

import (
	"testing"

	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// MongoDB goes away before a run ends. The worker and Redis are killed with the entry in its list. When all are back, the entry is in the
// history, once, and it stays when Redis loses all.
func TestSlowHistoryOutlivesRestarts(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	server := startDurableRedis(t)
	s.useRedis(t, server)
	mongo := s.mongoProxy(t)
	s.env = append(s.env, s.mongoEnv(t, mongo), "JOB_ATTEMPTS=1", "SYNC_PATIENCE=0s", "USER_SYNC_INTERVAL=off")
	api, worker := s.startReady(t, "api"), s.startReady(t, "worker")
	completed := s.trigger(t, `{"syncType": "full"}`)
	s.result(t, completed)
	mongo.Down()
	failed := s.trigger(t, `{"syncType": "full"}`)
	s.failure(t, failed)
	worker.Kill()
	api.Kill()
	server.kill()
	server.restart(t)
	mongo.Up()
	s.startReady(t, "api")
	s.startReady(t, "worker")
	asked, err := client.New(s.api)
	if err != nil {
		t.Fatal(err)
	}
	ids := func() (ids []string) {
		for e, err := range asked.AllHistory(t.Context(), client.HistoryFilter{Kind: client.HistoryRun}) {
			if err != nil {
				return nil
			}
			ids = append(ids, e.ID)
		}
		return ids
	}
	testbed.Eventually(t, "both entries", func() bool { return len(ids()) >= 2 })
	if err := s.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got := ids(); len(got) != 2 || got[0] != failed.String() || got[1] != completed.String() {
		t.Errorf("the history has %q, want %s and %s", got, failed, completed)
	}
}
