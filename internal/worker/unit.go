// What differs between runs and ranges, apart from what Redis keeps of them.

package worker

import (
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// unit says what the tasks of a queue are. Its text is a label of the metrics.
type unit string

const (
	unitRun   unit = "run"
	unitRange unit = "range"
)

// queue returns the queue of the job type's runs or ranges.
func (u unit) queue(def tasks.Definition) string {
	if u == unitRange {
		return def.RangeQueue()
	}
	return def.Queue()
}

// title returns the name with a capital letter.
func (u unit) title() string {
	if u == unitRange {
		return "Range"
	}
	return "Run"
}

// idName returns what messages call its ID.
func (u unit) idName() string {
	if u == unitRange {
		return "range"
	}
	return "job"
}

// failed returns how the log says that an attempt has failed.
func (u unit) failed(def tasks.Definition) string {
	if u == unitRange {
		return "A range failed"
	}
	return def.Title + " job failed"
}

// tooLong returns the reason for failing when the run exceeds its maximum duration.
func (u unit) tooLong(reason error) error {
	if u == unitRange {
		return fmt.Errorf("its run %w", reason)
	}
	return reason
}

// countEnd counts an end. Started is when the run began, and zero if it never did.
func (u unit) countEnd(m *jobMetrics, outcome string, started time.Time) {
	if u == unitRun {
		m.runEnded(outcome, started)
	} else {
		m.ranges[outcome].Inc()
	}
}
