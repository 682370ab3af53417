//go:build slow

package e2e_test

import (
	"net/http"
	"testing"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// The receiver is away when a run fails. Then the workers and Redis are killed. All come back, and the event is told once.
func TestSlowNotificationsOutliveRedis(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, messyUsers(20))
	server := startDurableRedis(t)
	s.useRedis(t, server)
	e, r := startEndpoint(t), startReceiver(t)
	e.reset(firstSecret, refused)
	settings := append(r.env(), "USER_SYNC_URL="+e.url, "USER_SYNC_SECRET="+firstSecret, "JOB_ATTEMPTS=1", "USER_SYNC_INTERVAL=off")
	s.startReady(t, "api")
	worker := s.startReady(t, "worker", settings...)
	r.behave(http.StatusServiceUnavailable, nil)
	failed := s.trigger(t, `{"syncType": "full"}`)
	s.failure(t, failed)
	worker.Kill() // with the notice in the list, in the queue, or under way
	server.kill()
	server.restart(t)
	s.startReady(t, "worker", settings...)
	testbed.Eventually(t, "a try", func() bool { tries, _ := r.seen(); return len(tries) > 0 })
	server.kill()
	server.restart(t)
	r.behave(http.StatusNoContent, nil)
	r.wait(t, "run.failed", failed.String())
	e.reset(firstSecret, nil)
	recovered := s.trigger(t, `{"syncType": "full"}`)
	s.result(t, recovered)
	r.wait(t, "run.recovered", recovered.String())
	r.wantOnce(t, "run.failed", "run.recovered")
}
