// Package notify tells a team's own receiver what it must know: a run that failed for good, the next one that succeeded, many failed
// records, missed ticks. A notification is a run of a job type of its own, which workers with a receiver do. So it is retried, and
// outlives a process, as any run does. The job type is in a registry of its own, and so in no list, status or schedule.
//
// Package jobs knows what the events are, and how they get into Redis. docs/notifications.md is for people.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/webhook"
)

const (
	// Concurrency is how many requests one worker sends at the same time. A receiver that hangs holds up no run: these are not the
	// places of WORKER_CONCURRENCY.
	Concurrency = 4
	// giveUp is how old an event is when it is not sent any more.
	giveUp = 24 * time.Hour
	// leastWait and mostWait bound the time between two tries. Between them it is as long as all tries before took, so it doubles. A
	// receiver can ask for longer.
	leastWait, mostWait = 5 * time.Second, time.Hour
	// kept is how many notifications of each kind of end are kept. An event that is still known is not sent twice.
	kept = 200

	// moveInterval is how often a worker looks for notices. markEvery is how many looks there are until it says again that it notifies.
	moveInterval = 2 * time.Second
	markEvery    = 5
	// moveTimeout bounds one look.
	moveTimeout = 10 * time.Second
)

// definition is the job type.
var definition = tasks.Definition{
	Name: jobs.NotifyJob, Title: "Notification", NewPayload: func() tasks.Payload { return new(jobs.Notification) },
	Unique: tasks.Unique{Mode: tasks.UniqueNever}, PerWorker: Concurrency, Attempts: 1, KeepCompleted: kept, KeepFailed: kept,
}

// Queue returns the queue of notifications that belongs to the jobs of a system.
func Queue(system *jobs.Jobs, log *slog.Logger) *jobs.Jobs {
	registry, err := tasks.NewRegistry(definition)
	if err != nil {
		panic(err) // a programming error that every test would show
	}
	return jobs.New(system.Redis(), registry.In(system.Registry().Namespace()), log)
}

// Delivered is the result of a notification that the receiver has taken.
type Delivered struct {
	// Status is the HTTP status of the answer.
	Status int `json:"status"`
}

// Handler returns the handler of the job type, which sends the notifications. Metrics can be nil.
func Handler(client *webhook.Client, metrics *Metrics) jobtype.Handler {
	return func(ctx context.Context, a *jobtype.Attempt) (any, error) {
		event, ok := a.Payload.(*jobs.Notification)
		if !ok {
			return nil, fmt.Errorf("the payload is a %T", a.Payload)
		}
		body, err := json.Marshal(event)
		if err != nil {
			return nil, fmt.Errorf("encoding a notification: %w", err)
		}
		answer, err := client.Post(ctx, a.ID.String(), body, 0)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		switch {
		case err != nil:
			err = fmt.Errorf("the receiver %w", err)
			answer = new(webhook.Answer)
		case answer.Status >= 200 && answer.Status <= 299:
			metrics.count(outcomeDelivered)
			a.Log.Info("Notification delivered", "event", event.Type, "status", answer.Status)
			return Delivered{answer.Status}, nil
		default:
			err = errors.New("the receiver " + answer.String())
		}
		if event.Type == jobs.EventTest { // who waits for it wants to know at once
			metrics.count(outcomeFailed)
			return nil, jobtype.Permanent(err)
		}
		happened, _ := time.Parse(tasks.TimestampLayout, event.Timestamp) // of an invalid one, long ago
		age := time.Since(happened)
		if age >= giveUp {
			metrics.count(outcomeGivenUp)
			a.Log.Error("Notification given up", "event", event.Type, "data", string(event.Data), "after", age.Round(time.Second).String(), "error", err)
			return nil, jobtype.Permanent(fmt.Errorf("given up after %s: %w", giveUp, err))
		}
		metrics.count(outcomeFailed)
		return nil, &jobtype.WaitError{Err: err, After: min(max(answer.RetryAfter, leastWait, min(age, mostWait)), giveUp-age)}
	}
}

// Move moves the notices of the system into the queue until ctx ends, and says that events are notified of. ErrorRate is the share of
// a run's records from which on it is an event that they failed, 0 for never. Any number of processes can do so.
func Move(ctx context.Context, system, queue *jobs.Jobs, errorRate float64, log *slog.Logger) {
	ticker := time.NewTicker(moveInterval)
	defer ticker.Stop()
	for n := 0; ; n++ {
		looking, cancel := context.WithTimeout(ctx, moveTimeout)
		var err error
		if n%markEvery == 0 {
			err = system.Notify(looking, errorRate)
		}
		if err == nil {
			_, err = system.MoveNotices(looking, queue)
		}
		cancel()
		if err != nil && ctx.Err() == nil { // other code reports a Redis that is away
			log.Debug("Could not move notices", "error", err)
			n = -1 // it may have lost that events are notified of
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
