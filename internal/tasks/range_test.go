package tasks_test

import (
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestRangeID(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1760000000123)
	for _, run := range []tasks.RunID{tasks.TickID("user-sync", at), tasks.TriggerID("user-sync", at)} {
		for _, index := range []int{0, 7, 5000} {
			id := tasks.RangeID{Run: run, Index: index}
			if parsed, err := tasks.ParseRangeID(id.String()); err != nil || parsed != id {
				t.Errorf("%s was read as %v, %v", id, parsed, err)
			}
		}
	}
	for _, wrong := range []string{"", "/", "1000:user-sync", "1000:user-sync/", "1000:user-sync/x", "1000:user-sync/-1", "1000:user-sync/01", "1000:user-sync/1/2", "x/1"} {
		if id, err := tasks.ParseRangeID(wrong); err == nil || !strings.Contains(err.Error(), "<job id>/<index>") {
			t.Errorf("%q was read as %v, %v", wrong, id, err)
		}
	}
}
