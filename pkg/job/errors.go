// What an error of a team's function says about the run.

package job

import (
	"time"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/syncrun"
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

// Halve wraps an error of Update that one of the batch's records may cause, or its size. The same batch is passed tries times in all,
// after short waits. Then it is passed in halves, each half once, and so on. A record that fails alone has the error as its Outcome's
// Err. So one bad record fails neither the run nor the others. A Job treats it as any other error.
func Halve(err error, tries int) error {
	if err == nil {
		return nil
	}
	return &syncrun.HalveError{Err: err, Tries: max(1, tries)}
}

// Permanent wraps an error after which another attempt would be useless: the run fails at once. Any other error fails the
// attempt, and the next one follows if any is left.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return jobtype.Permanent(err)
}
