// The ID, the queue and the task of a range.

package tasks

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hibiken/asynq"
)

// RangeID names one range of a split run: `<run ID>/<index>`.
type RangeID struct {
	Run RunID
	// Index counts from 0.
	Index int
}

// String returns the ID's text.
func (id RangeID) String() string { return id.Run.String() + "/" + strconv.Itoa(id.Index) }

// ParseRangeID reads the text of an ID. Its error says what an ID looks like.
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

// RangeQueue returns the name of the queue for the ranges of the job type. Ranges have a queue of their own, so that a run
// that waits for its ranges cannot block them. Each job type has one, so that a large run does not hold up other job types.
func (d Definition) RangeQueue() string { return d.Queue() + ":" + rangesName }

// rangesName ends the names of the queues for ranges.
const rangesName = "ranges"

// RangeType returns the asynq type of a range's task.
func (d Definition) RangeType() string { return d.Name + ":range" }

// NewRangeTask returns the asynq task of a range. It carries the encoded payload of its run, and headers, which can be nil.
// asynq deletes the task when the range has ended.
func (d Definition) NewRangeTask(id RangeID, payload []byte, headers map[string]string) *asynq.Task {
	return asynq.NewTaskWithHeaders(d.RangeType(), payload, headers,
		asynq.Queue(d.RangeQueue()),
		asynq.MaxRetry(maxRetry),
		asynq.Timeout(d.MaxDuration+timeoutMargin),
		asynq.TaskID(id.String()),
	)
}
