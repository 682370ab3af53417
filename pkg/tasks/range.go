package tasks

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hibiken/asynq"
)

// RangeID is the identity of one range of a run that is cut: `<run>/<index>`, with the index counting from 0.
type RangeID struct {
	Run   RunID
	Index int
}

// String returns the ID's text.
func (id RangeID) String() string { return id.Run.String() + "/" + strconv.Itoa(id.Index) }

// ParseRangeID reads the text of an ID. It returns an error that says what an ID looks like.
func ParseRangeID(s string) (RangeID, error) {
	run, index, _ := strings.Cut(s, "/")
	parsed, err := ParseRunID(run)
	n, notANumber := strconv.Atoi(index)
	id := RangeID{Run: parsed, Index: n}
	if err != nil || notANumber != nil || n < 0 || id.String() != s {
		return RangeID{}, fmt.Errorf("range id %q is not of the form <job id>/<index>", abbreviate(s))
	}
	return id, nil
}

// RangeQueue is the name of the queue of the ranges of the job type's runs. It is not the runs' own, so that runs which
// wait for their ranges cannot keep these from being worked on, and each job type has one, so that a large run of one
// does not make those of the others wait.
func (d Definition) RangeQueue() string { return d.Name + ":ranges" }

// RangeType is the type of the tasks of the ranges.
func (d Definition) RangeType() string { return d.Name + ":range" }

// NewRangeTask returns the asynq task of a range. It carries its run's encoded payload, and headers, which may be nil.
// Nothing is kept of it once it has ended.
func (d Definition) NewRangeTask(id RangeID, payload []byte, headers map[string]string) *asynq.Task {
	return asynq.NewTaskWithHeaders(d.RangeType(), payload, headers,
		asynq.Queue(d.RangeQueue()),
		asynq.MaxRetry(maxRetry),
		asynq.Timeout(d.MaxDuration+timeoutMargin),
		asynq.TaskID(id.String()),
	)
}
