// A test of the receiver, on demand.

package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// testPoll is the time between two looks at the test.
const testPoll = 50 * time.Millisecond

// ErrNobody is the error of Test for a system of which no worker notifies.
var ErrNobody = errors.New("no worker notifies")

// Outcome is what became of a test.
type Outcome struct {
	// ID is that of the notification.
	ID string
	// Status is the HTTP status of the answer, if the receiver has taken it. Otherwise it is 0, and Reason says why it has not.
	Status int
	Reason string
}

// Test sends a test to the receiver, as any notification is sent, and waits for its outcome until the deadline of ctx. It can return
// ErrNobody. Other errors mean that Redis does not answer.
func Test(ctx context.Context, system, queue *jobs.Jobs) (Outcome, error) {
	notifies, err := system.Notifies(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if !notifies {
		return Outcome{}, ErrNobody
	}
	now := time.Now()
	id := tasks.TriggerID(jobs.NotifyJob, now)
	if _, err := queue.EnqueueEvent(ctx, jobs.Event{ID: id, Type: jobs.EventTest, At: now, Data: json.RawMessage("{}")}); err != nil {
		return Outcome{}, err
	}
	began := false
	for {
		job, err := queue.Find(ctx, id)
		switch {
		case ctx.Err() != nil: // it is over, see below
		case err != nil:
			return Outcome{}, err
		case job.State == jobs.StateCompleted:
			var taken Delivered
			err := json.Unmarshal(job.Result, &taken)
			return Outcome{ID: id.String(), Status: taken.Status}, err
		case job.State.Ended():
			return Outcome{ID: id.String(), Reason: job.Error}, nil
		default:
			began = job.State == jobs.StateActive
		}
		select {
		case <-time.After(testPoll):
			continue
		case <-ctx.Done():
		}
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return Outcome{}, context.Cause(ctx)
		}
		break
	}
	reason := "no worker with NOTIFY_URL has taken it in time"
	if began {
		reason = "the receiver has not answered in time"
	}
	// Nobody waits for it any more.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := queue.Cancel(ending, id, jobs.Trigger{Kind: jobs.TriggeredByAPI}); err != nil && !errors.Is(err, jobs.ErrEnded) {
		return Outcome{}, fmt.Errorf("ending the test: %w", err)
	}
	return Outcome{ID: id.String(), Reason: reason}, nil
}
