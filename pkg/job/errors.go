// What an error of a team's function says about the run.

package job

import (
	"time"

	"github.com/codex-api/codex-jobs/internal/jobtype"
)

// Wait wraps an error because of which the work cannot go on now: what it needs is away, or asks for less. After says how long to
// wait. With 0 a Sync asks again after a tenth of a second, and then ever later, up to 2 s; a Job, and a run that is snoozed, waits a
// minute. The wait costs no attempt. A Sync passes the batch again, and meanwhile keeps its other batches.
// A wait beyond the retry budget (SYNC_PATIENCE) snoozes the run, as does any wait of a Job: its worker is free for other runs
// until then. A run that waits for 24 h without any progress fails.
func Wait(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &jobtype.WaitError{Err: err, After: after}
}

// Permanent wraps an error after which another attempt would be useless: the run fails at once. Any other error fails the
// attempt, and the next one follows if any is left.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return jobtype.Permanent(err)
}
