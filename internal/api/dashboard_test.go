package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/api"
)

func TestDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.trigger(t, "user-sync", "")
	b.trigger(t, "issue-sync", "")
	for _, path := range []string{"/dashboard", "/dashboard/", "/dashboard/queues/user-sync"} {
		a := b.get(t, path)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.text, "<html") {
			t.Errorf("%s: %d %s %.200s", path, a.status, a.header.Get("Content-Type"), a.text)
		}
		// The page's own files are under the path, too.
		_, script, _ := strings.Cut(a.text, `src="`)
		script, _, _ = strings.Cut(script, `"`)
		if file := b.get(t, script); !strings.HasPrefix(script, "/dashboard/") || file.status != http.StatusOK || !strings.Contains(file.header.Get("Content-Type"), "javascript") {
			t.Errorf("%s: its script %q: %d %s", path, script, file.status, file.header.Get("Content-Type"))
		}
	}
	if got := b.queues(t); !slices.Equal(got, []string{"issue-sync", "user-sync"}) {
		t.Errorf("the queues are %v", got)
	}
}

// queues asks asynqmon for the names of the queues.
func (b *testBundle) queues(t *testing.T) []string {
	t.Helper()
	var r struct {
		Queues []struct{ Queue string }
	}
	a := b.get(t, "/dashboard/api/queues")
	if err := json.Unmarshal([]byte(a.text), &r); err != nil || a.status != http.StatusOK {
		t.Fatalf("listing queues: %d %s", a.status, a.text)
	}
	var names []string
	for _, q := range r.Queues {
		names = append(names, q.Queue)
	}
	slices.Sort(names)
	return names
}

func TestDashboardMayBeWritable(t *testing.T) {
	t.Parallel()
	for _, writable := range []bool{false, true} {
		t.Run(fmt.Sprintf("writable %v", writable), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(o *api.Options) { o.DashboardReadOnly = !writable })
			id := b.trigger(t, "user-sync", "").Data.JobID
			before := b.dump(t)
			for _, request := range []struct{ method, path string }{
				{http.MethodPost, "/dashboard/api/queues/user-sync:pause"},
				{http.MethodPost, "/dashboard/api/queues/user-sync:resume"},
				{http.MethodPost, "/dashboard/api/queues/user-sync/pending_tasks/" + id + ":archive"},
				{http.MethodDelete, "/dashboard/api/queues/user-sync/archived_tasks/" + id},
			} {
				a := b.request(t, request.method, request.path, "")
				if refused := a.status == http.StatusMethodNotAllowed; refused == writable || !refused && a.status/100 != 2 {
					t.Errorf("%s %s: %d %s", request.method, request.path, a.status, a.text)
				}
				if changed := changes(before, b.dump(t)); !writable && changed != nil {
					t.Errorf("%s %s: in Redis, %v", request.method, request.path, changed)
				}
			}
			if waiting := b.status(t, "").Counts.Waiting; (waiting == 0) != writable {
				t.Errorf("%d runs wait", waiting)
			}
		})
	}
}
