// The records that fail, for the run's entry in the history.

package syncjob

import (
	"context"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// namingTimeout bounds the question for the names of the failed records, once in an attempt.
const namingTimeout = 2 * time.Second

// failures tells the attempt which records have failed.
type failures struct {
	attempt *jobtype.Attempt
	store   syncrun.Store
	records []syncrun.FailedRecord
}

// are says which records have failed by now. The list only grows.
func (f *failures) are(records []syncrun.FailedRecord) {
	if len(records) > len(f.records) {
		f.records = records
		f.tell()
	}
}

func (f *failures) tell() {
	if f.attempt.Failed == nil {
		return
	}
	list := make([]jobs.FailedRecord, len(f.records))
	for i, r := range f.records {
		list[i] = jobs.FailedRecord{ID: r.ID, Name: r.Name, Reason: r.Reason}
	}
	f.attempt.Failed(list)
}

// name asks the store for the names that are not known, even if ctx has ended: the run may have been cancelled. Without an answer the
// records keep their IDs. An attempt that is to stop leaves it to the next one.
func (f *failures) name(ctx context.Context) {
	if len(f.records) == 0 {
		return
	}
	select {
	case <-f.attempt.Stop:
		return
	default:
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), namingTimeout)
	defer cancel()
	named, err := syncrun.NameFailed(bounded, f.store, f.records)
	if err != nil {
		f.attempt.Log.Debug("Could not ask for the names of the records that failed", "error", err)
		return
	}
	f.records = named
	f.tell()
}
