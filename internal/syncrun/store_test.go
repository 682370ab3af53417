package syncrun_test

import (
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// A run that is late must believe the stamps of the runs that came after it.
func TestLatestStampThatIsBelieved(t *testing.T) {
	t.Parallel()
	const window = freshness + 10*time.Minute
	soon := time.Now().Add(time.Hour)
	if got := (syncrun.Selection{Reference: soon, Freshness: freshness}).Latest(); !got.Equal(soon.Add(window)) {
		t.Errorf("for a run of the future it is %s, want %s after the reference", got, window)
	}
	begun := time.Now()
	got := syncrun.Selection{Reference: begun.Add(-24 * time.Hour), Freshness: freshness}.Latest()
	if got.Before(begun.Add(window)) || got.After(time.Now().Add(window)) {
		t.Errorf("for a run of yesterday it is %s, want %s after now", got, window)
	}
}
