package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// sharing returns another deployment on the same Redis database, with a MongoDB database and an API of its own.
func (s *system) sharing(t *testing.T, env ...string) *system {
	t.Helper()
	var redis []string
	for _, setting := range s.env {
		if strings.HasPrefix(setting, "REDIS_") {
			redis = append(redis, setting)
		}
	}
	return setupOn(t, s.redis, append(redis, env...)...)
}

// unstamped returns how many users were not synced.
func (s *system) unstamped(t *testing.T) int64 {
	t.Helper()
	n, err := s.users.CountDocuments(t.Context(), bson.D{{Key: lastSynced, Value: nil}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// state returns the state of a run, as its API says.
func (s *system) state(t *testing.T, id tasks.RunID) (state string, attempt int) {
	t.Helper()
	var answer struct {
		Data struct {
			State   string
			Attempt int
		}
	}
	s.get(t, "/jobs/"+id.String(), &answer)
	return answer.Data.State, answer.Data.Attempt
}

func plainUsers(n int) []bson.D {
	users := make([]bson.D, n)
	for i := range users {
		users[i] = bson.D{{Key: "_id", Value: i}, {Key: "username", Value: "user"}}
	}
	return users
}

// Two deployments with namespaces share a Redis database, and nothing in it.
func TestTwoDeploymentsInOneRedis(t *testing.T) {
	t.Parallel()
	a := setup(t)
	a.env = append(a.env, "NAMESPACE=a")
	b := a.sharing(t, "NAMESPACE=b")
	for _, s := range []*system{a, b} {
		s.insert(t, plainUsers(200))
		s.env = append(s.env, "USER_SYNC_INTERVAL=off", "DASHBOARD_READ_ONLY=false")
		s.startReady(t, "api")
		s.startReady(t, "worker")
	}
	b.startReady(t, "scheduler", "USER_SYNC_INTERVAL=1h")
	testbed.Eventually(t, "b's health to be complete", func() bool {
		h, _ := b.health(t)
		return h.Jobs.Initialized
	})
	if h, _ := a.health(t); h.Jobs.Workers != 1 || h.Jobs.Schedulers != 0 {
		t.Errorf("a's health counts %+v", h.Jobs)
	}
	for range 6 {
		id := a.triggerJob(t, userSync, `{"syncType": "full"}`)
		testbed.Eventually(t, "a's run to complete", func() bool {
			state, _ := a.state(t, id)
			return state == "completed"
		})
		if status, data := b.request(t, http.MethodGet, "/jobs/"+id.String(), ""); status != http.StatusNotFound {
			t.Errorf("b's API knows a's run: %d %s", status, data)
		}
		if status, data := b.request(t, http.MethodDelete, "/jobs/"+id.String(), ""); status != http.StatusNotFound {
			t.Errorf("b's API removes a's run: %d %s", status, data)
		}
	}
	if left, theirs := a.unstamped(t), b.unstamped(t); left != 0 || theirs != 200 {
		t.Errorf("%d of a's users and %d of b's were not synced, want none and all", left, theirs)
	}
	var queues struct{ Queues []struct{ Queue string } }
	b.get(t, "/dashboard/api/queues", &queues)
	for _, q := range queues.Queues {
		if !strings.HasPrefix(q.Queue, "b:") {
			t.Errorf("b's dashboard shows %s", q.Queue)
		}
	}
	_, metrics := b.request(t, http.MethodGet, "/metrics", "")
	if want := `codex_jobs_queue_tasks{job_type="user-sync",namespace="b",state="completed",unit="run"} 0`; !strings.Contains(string(metrics), want) {
		t.Errorf("b's metrics lack %s", want)
	}
}

// A deployment that shares Redis and namespace by mistake takes no run. After the others have left, it works.
func TestAnotherDatabaseInOneRedis(t *testing.T) {
	t.Parallel()
	a := setup(t)
	b := a.sharing(t)
	for _, s := range []*system{a, b} {
		s.insert(t, plainUsers(200))
		s.startReady(t, "api")
	}
	first := a.startReady(t, "worker")
	a.result(t, a.trigger(t, `{"syncType": "full"}`)) // it takes part
	admin := testbed.FreePort(t)
	second := b.startReady(t, "worker", "ADMIN_PORT="+admin)
	second.waitForLog(t, "Takes no runs: the other workers of this namespace use another database", attrs{"level": "WARN"})
	for range 4 {
		a.result(t, a.trigger(t, `{"syncType": "full"}`))
	}
	if left, theirs := a.unstamped(t), b.unstamped(t); left != 0 || theirs != 200 {
		t.Errorf("%d of a's users and %d of b's were not synced, want none and all", left, theirs)
	}
	for _, s := range []*system{a, b} {
		var h struct{ Jobs struct{ Warnings []string } }
		if s.get(t, "/health", &h); !slices.Equal(h.Jobs.Warnings, []string{"workers that take no runs, because the others use another database, or have other endpoints: 1"}) {
			t.Errorf("the health warns of %q", h.Jobs.Warnings)
		}
	}
	ready, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+admin+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, data := send(t, ready); status != http.StatusOK {
		t.Errorf("the worker is not ready: %d %s", status, data)
	}
	first.stop(t)
	id := b.trigger(t, `{"syncType": "full"}`)
	wantComplete(t, b.result(t, id), 200)
	if left := b.unstamped(t); left != 0 {
		t.Errorf("%d of b's users were not synced", left)
	}
	second.waitForLog(t, "Takes runs again: no other worker uses another database, or has other endpoints", nil)
}

// A cancel in another database of the same Redis, of a run with the same ID, ends nothing here.
func TestCancelInAnotherDatabase(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.insert(t, plainUsers(300))
	s.startReady(t, "api")
	s.startReady(t, "worker")
	id := s.trigger(t, `{"syncType": "full", "batchSize": 1}`)
	testbed.Eventually(t, "the run to be active", func() bool {
		state, _ := s.state(t, id)
		return state != "waiting"
	})
	other := setup(t)
	inspector := asynq.NewInspectorFromRedisClient(other.rdb)
	for range 3 {
		if err := inspector.CancelProcessing(id.String()); err != nil {
			t.Fatal(err)
		}
	}
	wantComplete(t, s.result(t, id), 300)
	if state, attempt := s.state(t, id); state != "completed" || attempt != 1 {
		t.Errorf("it is %s after %d attempts", state, attempt)
	}
}
