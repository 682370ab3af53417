//go:build slow

// What keeps a small machine busy.

package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// A hundred clients use everything at once: one run of a kind serves all triggers, and no run is removed twice. When Redis does not answer in time, the API promises a 503,
// and the clients try again, as it says.
func TestSlowConcurrentUse(t *testing.T) {
	const clients = 100
	b := setupLocked(t)
	b.undescribed = true
	var mu sync.Mutex
	fresh, removed := 0, 0
	var unsure atomic.Int32 // changes that may have been made, although the answer was that Redis is not available
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			for j := range routes {
				r := routes[(i+j)%len(routes)]
				if r.writes() && (r.dashboard() || strings.Contains(r.url, "{")) {
					continue // they are about a single run
				}
				if r.path == "/jobs/retry-failed" || r.path == "/jobs/cancel-waiting" {
					continue // they move the runs that are counted here
				}
				if r.dashboard() && i%10 != 0 {
					continue // each is a dozen commands to Redis, and not our code
				}
				var a answer
				var err error
				for began := time.Now(); time.Since(began) < testbed.WaitLimit; time.Sleep(50 * time.Millisecond) {
					a, err = b.as(writeKey).try(t.Context(), r.method, b.url(r), r.body)
					if busy := a.status == http.StatusServiceUnavailable || r.dashboard() && a.status == http.StatusInternalServerError; !busy {
						break
					}
					if r.writes() {
						unsure.Add(1)
					}
				}
				if refused := r.conflict && a.status == http.StatusConflict; err != nil || a.status != http.StatusOK && !refused {
					t.Errorf("%s: %d %s, %v", r, a.status, a.text, err)
					continue
				}
				var did struct {
					Data struct {
						JobID             string
						Coalesced         bool
						Completed, Failed int
					}
				}
				if r.writes() {
					if err := json.Unmarshal([]byte(a.text), &did); err != nil {
						t.Errorf("%s: %v: %s", r, err, a.text)
					}
				}
				mu.Lock()
				if did.Data.JobID != "" && !did.Data.Coalesced {
					fresh++
				}
				removed += did.Data.Completed + did.Data.Failed
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if n := int(unsure.Load()); fresh > 1 || removed > b.ended || n == 0 && (fresh != 1 || removed != b.ended) {
		t.Errorf("%d runs are new, want 1; %d were removed, want %d", fresh, removed, b.ended)
	}
	ops := b.as(writeKey)
	if s := ops.status(t, ""); s.Counts.Waiting != 2 || s.Paused { // one of each kind
		t.Errorf("the user sync: %+v", s)
	}
	if s := ops.status(t, "?job=project-sync"); s.Counts.Completed+s.Counts.Failed != 0 || !s.Paused {
		t.Errorf("the project sync: %+v", s)
	}
	if s := ops.status(t, "?job=issue-sync"); s.Paused {
		t.Errorf("the issue sync: %+v", s)
	}
}
