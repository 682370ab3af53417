// Calling the Update of a Sync.

package jobtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// Written is what would become of a record.
type Written struct {
	// ID is the record's _id, as Record.ID shows it.
	ID string
	// Set is the fields that would be set, without the two dates, and Unset those that would be removed.
	Set   map[string]any
	Unset []string
	// Err is why nothing of the record would change. It is nil if it would get its dates.
	Err error
}

// Update calls s.Update with a batch of the records, each of which is a document such as bson.M with an _id. Of a record it shows
// only the fields that the sync wants to see. It does not look whether the Filter selects the record, which only MongoDB can tell.
// It returns what would be
// written for each record, in their order, or the error of Update, or what is wrong with the job type or a record.
func Update[T any](ctx context.Context, s job.Sync[T], with With, records ...any) ([]Written, error) {
	t, def, err := describe(job.NewSync(s))
	if err != nil {
		return nil, err
	}
	payload := &tasks.SyncPayload{SyncType: with.SyncType}
	if err := payload.Validate(); err != nil {
		return nil, err
	}
	a, err := with.attempt(def, payload)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New("there is no record; a batch has at least one")
	}
	batch := make([]syncrun.Record, len(records))
	for i, record := range records {
		if batch[i], err = mongodb.NewRecord(t.Sync.Store, record); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
	}
	outcomes, err := t.Sync.Work(a).Do(ctx, batch)
	if err != nil {
		wait := new(syncrun.WaitError)
		if errors.As(err, &wait) {
			return nil, &jobtype.WaitError{Err: wait.Err, After: wait.After}
		}
		return nil, err
	}
	written := make([]Written, len(batch))
	for i, o := range outcomes {
		written[i] = Written{ID: batch[i].ID.String(), Set: o.Set, Unset: o.Unset, Err: o.Err}
		if o.Err == nil {
			written[i].Err = t.Sync.Store.CheckUpdate(o.Set, o.Unset)
		}
		if written[i].Err != nil {
			written[i].Set, written[i].Unset = nil, nil
		}
	}
	return written, nil
}
