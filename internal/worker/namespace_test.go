package worker_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/internal/worker"
)

// Deployments with different namespaces share a Redis, and nothing in it: each works on its own runs.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	plain := setup(t, nil)
	deployments := map[string]*testBundle{"": plain}
	for _, namespace := range []tasks.Namespace{"a", "b"} {
		b := *plain
		b.Jobs = jobs.New(b.rdb, codex.Registry().In(namespace), b.logger)
		b.user, _ = b.Registry().Lookup("user-sync")
		deployments[string(namespace)] = &b
	}
	stores := make(map[string]*numbers)
	for name, b := range deployments {
		handler, store := syncOf(300, syncrun.Stamping{}) // three ranges
		stores[name] = store
		b.start(t, worker.Options{}, handler)
	}
	wantDone := func(done ...string) {
		t.Helper()
		for name, store := range stores {
			store.mu.Lock()
			if n := len(store.stamped); n != 0 && !slices.Contains(done, name) || n != 300 && slices.Contains(done, name) {
				t.Errorf("in the namespace %q, %d were stamped", name, n)
			}
			store.mu.Unlock()
		}
	}
	for i, name := range []string{"a", "", "b"} {
		b := deployments[name]
		id, err := tasks.ParseRunID(b.trigger(t, "user-sync", tasks.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, "its run to complete", func() bool {
			job, err := b.Find(t.Context(), id)
			return err == nil && job.State == jobs.StateCompleted
		})
		wantDone([]string{"a", "", "b"}[:i+1]...)
		for other, b := range deployments {
			if other != name {
				if _, err := b.Find(t.Context(), id); err == nil {
					t.Errorf("%s is seen in the namespace %q", id, other)
				}
			}
			if n, err := b.Live(t.Context(), jobs.RoleWorker); err != nil || n != 1 {
				t.Errorf("in the namespace %q live %d workers, %v", other, n, err)
			}
		}
		if name != "a" {
			continue
		}
		// What the first one has left is in its namespace, apart from what the workers without one have.
		keys, err := b.rdb.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if strings.Contains(key, "user-sync") && !strings.Contains(key, "{a:user-sync") {
				t.Errorf("%s is not in the namespace", key)
			}
		}
	}
}
