package worker

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

func TestOperationTimeout(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ budget, read, write time.Duration }{
		{0, leastTimeout, leastTimeout},
		{time.Second, leastTimeout, leastTimeout},
		{time.Minute, time.Minute, mongodb.DefaultWriteTimeout},
		{time.Hour, mongodb.DefaultReadTimeout, mongodb.DefaultWriteTimeout},
	} {
		if got := operationTimeout(test.budget, mongodb.DefaultReadTimeout); got != test.read {
			t.Errorf("with a budget of %s a read may take %s, want %s", test.budget, got, test.read)
		}
		if got := operationTimeout(test.budget, mongodb.DefaultWriteTimeout); got != test.write {
			t.Errorf("with a budget of %s a write may take %s, want %s", test.budget, got, test.write)
		}
	}
}

// The history must not get into the records, nor the records into the history.
func TestHistoryHasACollectionOfItsOwn(t *testing.T) {
	t.Parallel()
	types := jobtype.All(codex.Types())
	j := jobs.New(nil, codex.Registry(), slog.New(slog.DiscardHandler))
	for collection, refused := range map[string]bool{"job_runs": false, "users": true, "issues": true} {
		cfg := config.Config{History: config.History{Collection: collection, Keep: time.Hour}}
		move, err := mover(j, nil, cfg, types, slog.New(slog.DiscardHandler))
		if refused != (err != nil) || refused == (move != nil) {
			t.Errorf("%s: %v", collection, err)
		}
		if want := `HISTORY_COLLECTION must be another collection than those of the records, was "` + collection + `"`; refused && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", collection, err, want)
		}
	}
	if move, err := mover(j, nil, config.Config{}, types, slog.New(slog.DiscardHandler)); move != nil || err != nil {
		t.Errorf("without a history: %v", err)
	}
}

func TestWhatIsKeptOfFailedRecords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		history config.History
		want    syncrun.KeepFailed
	}{
		{config.History{Records: config.RecordNames}, syncrun.KeepNothing}, // there is no history
		{config.History{Keep: time.Hour, Records: config.RecordsOff}, syncrun.KeepNothing},
		{config.History{Keep: time.Hour, Records: config.RecordIDs}, syncrun.KeepIDs},
		{config.History{Keep: time.Hour, Records: config.RecordNames}, syncrun.KeepNames},
	} {
		if got := failedOf(test.history); got != test.want {
			t.Errorf("%+v: %d, want %d", test.history, got, test.want)
		}
	}
}
