package worker

import (
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// unit is what a queue's tasks are. Its text is that of the metrics' label.
type unit string

const (
	unitRun   unit = "run"
	unitRange unit = "range"
)

// String returns the unit's name.
func (u unit) String() string { return string(u) }

// queue is the queue of the job type's tasks.
func (u unit) queue(def tasks.Definition) string {
	if u == unitRange {
		return def.RangeQueue()
	}
	return def.Name
}

// title is the name as a sentence begins with it.
func (u unit) title() string {
	if u == unitRange {
		return "Range"
	}
	return "Run"
}

// idName is what messages call its ID.
func (u unit) idName() string {
	if u == unitRange {
		return "range"
	}
	return "job"
}

// failed is how the log says that an attempt has failed.
func (u unit) failed(def tasks.Definition) string {
	if u == unitRange {
		return "A range failed"
	}
	return def.Title + " job failed"
}

// overdue is the reason of what took too long.
func (u unit) overdue(reason error) error {
	if u == unitRange {
		return fmt.Errorf("its run %w", reason)
	}
	return reason
}

// ended counts an end. A run began at the time; the zero time is that of one that never did.
func (u unit) ended(m *jobMetrics, outcome string, started time.Time) {
	if u == unitRun {
		m.runEnded(outcome, started)
	} else {
		m.ranges[outcome].Inc()
	}
}
