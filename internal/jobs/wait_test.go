package jobs_test

import (
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestRunThatWaits(t *testing.T) {
	t.Parallel()
	b, ctx := setup(t)
	id := b.trigger(ctx, t, tasks.SyncFull).ID
	taken, _ := b.hold(t)
	<-taken
	if _, err := b.StartRun(ctx, id, tasks.SyncFull, jobs.NewOwner("host:1:abc")); err != nil {
		t.Fatal(err)
	}
	look := func() (*jobs.Wait, []jobs.Wait) {
		t.Helper()
		job, err := b.Find(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		all, err := b.Waits(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return job.Wait, all
	}
	if one, all := look(); one != nil || len(all) > 0 {
		t.Errorf("it waits from the beginning: %+v, %+v", one, all)
	}
	want := jobs.Wait{Run: id.String(), For: "updating users", Since: time.Now().Truncate(time.Millisecond).UTC()}
	if err := b.SetWait(ctx, id, jobs.Wait{For: want.For, Since: want.Since}); err != nil {
		t.Fatal(err)
	}
	if one, all := look(); one == nil || *one != want || len(all) != 1 || all[0] != want {
		t.Errorf("it waits for %+v, %+v; want %+v", one, all, want)
	}
	if ttl := b.rdb.PTTL(ctx, "codex-jobs:{user-sync}:wait").Val(); ttl <= 0 || ttl > 10*time.Second {
		t.Errorf("what it waits for is kept for %s", ttl)
	}
}
