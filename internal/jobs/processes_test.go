package jobs_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
)

func TestProcesses(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	working := jobs.About{Version: "v1.2.3", Started: 1795495826751, Doing: []string{"1795495826751:user-sync", "1795495826751:user-sync/7"}}
	must(t, b.Heartbeat(ctx, jobs.RoleWorker, "b:1:X", working))
	must(t, b.Heartbeat(ctx, jobs.RoleWorker, "a:1:X", jobs.About{Version: "v1.2.3"}))
	must(t, b.Heartbeat(ctx, jobs.RoleScheduler, "c:1:X", jobs.About{}))
	must(t, b.Heartbeat(ctx, jobs.RoleWorker, "d:1:OLD", jobs.About{}))
	must(t, b.rdb.Del(ctx, "codex-jobs:worker:d:1:OLD").Err()) // as of a release that says nothing of itself
	list, err := b.Processes(ctx)
	must(t, err)
	for i, p := range list {
		if time.Since(p.Seen).Abs() > time.Minute {
			t.Errorf("%s was seen at %s", p.ID, p.Seen)
		}
		list[i].Seen = time.Time{}
	}
	if want := []jobs.Process{
		{Role: jobs.RoleScheduler, ID: "c:1:X"}, {Role: jobs.RoleWorker, ID: "a:1:X", About: jobs.About{Version: "v1.2.3"}},
		{Role: jobs.RoleWorker, ID: "b:1:X", About: working}, {Role: jobs.RoleWorker, ID: "d:1:OLD"},
	}; !reflect.DeepEqual(list, want) {
		t.Errorf("got\n%+v, want\n%+v", list, want)
	}
	for _, id := range []string{"a:1:X", "b:1:X", "d:1:OLD"} {
		must(t, b.Leave(ctx, jobs.RoleWorker, id))
	}
	must(t, b.Leave(ctx, jobs.RoleScheduler, "c:1:X"))
	if n, err := b.rdb.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("%d keys are left, %v", n, err)
	}
}
