package api_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

func TestListProcesses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var r struct{ Data client.ProcessList }
	b.ok(t, b.get(t, "/processes"), &r)
	if r.Data.Processes == nil || len(r.Data.Processes) != 0 {
		t.Errorf("of an empty system: %+v", r)
	}
	for id, about := range map[string]jobs.About{
		"b:1:X": {Version: "v1.2.3", Started: 1795495826751, Doing: []string{"1795495826751:user-sync", "1795495826751:user-sync/7"}},
		"a:1:X": {},
	} {
		if err := b.jobs.Heartbeat(t.Context(), jobs.RoleWorker, id, about); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.jobs.Heartbeat(t.Context(), jobs.RoleScheduler, "c:1:X", jobs.About{Version: "v1.2.3", Started: 1795495826751}); err != nil {
		t.Fatal(err)
	}
	b.ok(t, b.get(t, "/processes"), &r)
	for i, p := range r.Data.Processes {
		if time.Since(p.LastSeen.Time).Abs() > time.Minute {
			t.Errorf("%s was seen at %s", p.ID, p.LastSeen)
		}
		r.Data.Processes[i].LastSeen = client.Time{}
	}
	seven, started := 7, client.Time{Time: time.UnixMilli(1795495826751).UTC()}
	if want := []client.Process{
		{Role: "scheduler", ID: "c:1:X", Version: "v1.2.3", StartedAt: started},
		{Role: "worker", ID: "a:1:X"},
		{
			Role: "worker", ID: "b:1:X", Version: "v1.2.3", StartedAt: started,
			Doing: []client.Doing{{Job: "1795495826751:user-sync"}, {Job: "1795495826751:user-sync", Range: &seven}},
		},
	}; !reflect.DeepEqual(r.Data.Processes, want) {
		t.Errorf("got\n%+v, want\n%+v", r.Data.Processes, want)
	}
}

// The processes of a system say their release, and when they started.
func TestProcessesSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.startWorker(t)
	b.startScheduler(t)
	testbed.Eventually(t, "both processes", func() bool {
		var r struct{ Data client.ProcessList }
		b.ok(t, b.get(t, "/processes"), &r)
		var roles []string
		for _, p := range r.Data.Processes {
			if p.Version == "" || time.Since(p.StartedAt.Time).Abs() > time.Minute {
				t.Errorf("%+v", p)
			}
			roles = append(roles, p.Role)
		}
		return slices.Equal(roles, []string{"scheduler", "worker"})
	})
}

func TestWhoami(t *testing.T) {
	t.Parallel()
	open, locked := setup(t), setupLocked(t)
	for _, test := range []struct {
		name string
		as   *testBundle
		want client.Identity
	}{
		{"without keys", open, client.Identity{Write: true}},
		{"a key that writes", locked.as(writeKey), client.Identity{Key: "ops", Write: true}},
		{"a key that reads", locked.as(readKey), client.Identity{Key: "viewer"}},
	} {
		var r struct{ Data client.Identity }
		test.as.ok(t, test.as.get(t, "/whoami"), &r)
		if r.Data != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, r.Data, test.want)
		}
	}
}

// An active job shows what it has done to its records, and when a lost worker's job goes on.
func TestActiveJobOverTheAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	id := b.trigger(t, "user-sync", `{"syncType": "full"}`).Data.JobID
	run := next(t, began)
	run.Count(30, 28, 2)
	run.Total(300)
	if err := run.Save(t.Context(), nil, 10); err != nil {
		t.Fatal(err)
	}
	shown := func() (one, listed client.Job) {
		t.Helper()
		var r struct{ Data client.Job }
		b.ok(t, b.get(t, "/jobs/"+id), &r)
		var l struct{ Data client.JobList }
		b.ok(t, b.get(t, "/jobs?state=active"), &l)
		if len(l.Data.Jobs) != 1 {
			t.Fatalf("%+v", l)
		}
		return r.Data, l.Data.Jobs[0]
	}
	one, listed := shown()
	for _, job := range []client.Job{one, listed} {
		if job.Counts == nil || *job.Counts != (client.RecordCounts{Processed: 30, Updated: 28, Failed: 2}) || job.Total != 300 || job.RescueWithin != nil {
			t.Errorf("%+v of %d, rescued within %v", job.Counts, job.Total, job.RescueWithin)
		}
	}
	run.finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return b.job(t, id).State == "completed" })
}

// A job whose worker is lost says in how long another one takes over.
func TestLostWorkersJobOverTheAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.startWorker(t)
	id := b.trigger(t, "user-sync", "").Data.JobID
	run := next(t, began)
	leave := func(rest time.Duration) { // as a worker that is lost leaves it; the one here renews it every 5 s
		t.Helper()
		lease := redis.Z{Score: float64(time.Now().Add(rest).Unix()), Member: id}
		if err := b.rdb.ZAdd(t.Context(), "asynq:{user-sync}:lease", lease).Err(); err != nil {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, "the job to be rescued within 75 s", func() bool {
		leave(10 * time.Second)
		// What the worker says of itself would tell that it lives.
		for _, key := range b.rdb.Keys(t.Context(), "codex-jobs:worker:*").Val() {
			b.rdb.Del(t.Context(), key)
		}
		var r struct{ Data client.Job }
		b.ok(t, b.get(t, "/jobs/"+id), &r)
		within := r.Data.RescueWithin
		return within != nil && *within > 50_000 && *within <= 55_000
	})
	run.finish(nil)
	testbed.Eventually(t, "the job to be completed", func() bool { return b.job(t, id).State == "completed" })
}

func TestFieldsOfJobTypes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var r struct{ Data client.JobTypeList }
	b.ok(t, b.get(t, "/job-types"), &r)
	want := []client.Field{
		{
			Name: "syncType", Type: "string", Allowed: `"incremental" or "full"`, Options: []string{"incremental", "full"},
			Default: json.RawMessage(`"incremental"`),
		},
		{Name: "batchSize", Type: "integer", Allowed: "a whole number from 1 to 10000"},
	}
	if got := r.Data.JobTypes[0].Fields; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if a := b.post(t, "/jobs/trigger/user-sync", `{"syncType": "some"}`); a.status != http.StatusBadRequest {
		t.Errorf("%d %s", a.status, a.text)
	}
}
