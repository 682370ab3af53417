package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/telemetry"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

const (
	// rangeCheckInterval is how often the empty queues of the ranges are looked at. Every worker does so, and a range is
	// seconds of work, so that this may take longer than for runs.
	rangeCheckInterval = 50 * time.Millisecond
	// orphanJitter is by how much each worker waits longer before it looks after the ranges of a dead one, as one of them
	// is enough.
	orphanJitter = 5 * time.Second
	// shunTime is for how long a worker leaves the ranges of a job type to the others after it has taken one that only a
	// newer release understands.
	shunTime = 30 * time.Second
)

// rangeConsumer works on the ranges of runs that are cut, one at a time, for as long as its worker lives: the runs of
// every job type, whoever cut them, and beside the runs that its own worker has.
type rangeConsumer struct {
	w           *Worker
	definitions map[string]tasks.Definition // by range queue
	log         *slog.Logger

	mu      sync.Mutex
	shunned map[string]time.Time // until when, by range queue
}

func newRangeConsumer(w *Worker) *rangeConsumer {
	c := &rangeConsumer{w: w, definitions: make(map[string]tasks.Definition), shunned: make(map[string]time.Time), log: w.log}
	for _, def := range w.jobs.Registry().All() {
		c.definitions[def.RangeQueue()] = def
	}
	return c
}

// run consumes until ctx ends.
func (c *rangeConsumer) run(ctx context.Context) {
	for ctx.Err() == nil {
		queues, again := c.queues()
		if len(queues) == 0 {
			pause(ctx, time.Until(again), nil)
			continue
		}
		s := newSession(c.w, c.log, c.attempt)
		err := s.serve(asynq.Config{
			Queues:            queues,
			TaskCheckInterval: rangeCheckInterval,
			RetryDelayFunc:    c.retryDelay,
		}, func() error {
			var changed <-chan time.Time
			if !again.IsZero() {
				timer := time.NewTimer(time.Until(again))
				defer timer.Stop()
				changed = timer.C
			}
			select {
			case <-ctx.Done():
			case <-s.yield:
			case <-changed:
			}
			return errShutdown
		}, func(drained <-chan struct{}) { c.keep(s, drained) })
		if err != nil {
			c.log.Error("Could not start an asynq Server", "error", err)
			pause(ctx, time.Second, nil)
		}
	}
}

// queues returns those to consume, and when there is one more; the zero time for never.
func (c *rangeConsumer) queues() (queues map[string]int, again time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queues = make(map[string]int)
	for queue := range c.definitions {
		until := c.shunned[queue]
		switch {
		case !time.Now().Before(until):
			queues[queue] = 1
		case again.IsZero() || until.Before(again):
			again = until
		}
	}
	return queues, again
}

// shun leaves a queue to the other workers for a while. The session must end for that.
func (c *rangeConsumer) shun(queue string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shunned[queue] = time.Now().Add(shunTime)
}

// keep waits for asynq to record how each range has ended, and looks for ranges whose worker died: asynq finds those
// when a Server starts, so the session then ends, and what it works on goes on in the next one.
func (c *rangeConsumer) keep(s *session, drained <-chan struct{}) {
	orphans := time.NewTicker(orphanInterval)
	defer orphans.Stop()
	patience := orphanGrace + rand.N(orphanJitter)
	orphaned := make(map[string]time.Time)
	for {
		select {
		case task := <-s.ended:
			s.settle(task)
		case <-orphans.C:
			for queue := range c.definitions {
				orphaned[queue] = c.w.lookForOrphans(queue, orphaned[queue])
				if since := orphaned[queue]; !since.IsZero() && time.Since(since) > patience {
					c.log.Debug("Starting anew to recover a range from a dead worker", "queue", queue)
					s.end()
				}
			}
		case <-drained:
			s.settleRest()
			return
		}
	}
}

// retryDelay implements asynq.RetryDelayFunc.
func (c *rangeConsumer) retryDelay(_ int, err error, task *asynq.Task) time.Duration {
	for _, def := range c.definitions {
		if task.Type() == def.RangeType() {
			return retryDelay(def, err)
		}
	}
	return 0
}

// attempt is one attempt at a range. It returns nil when there is nothing left to do: a range's failure is kept with its
// run, and asynq forgets the task. It returns errGivenBack when the range shall go on elsewhere, and otherwise what asynq
// shall record before the next attempt.
func (c *rangeConsumer) attempt(taskCtx context.Context, s *session, task *asynq.Task) (err error) {
	taskID, _ := asynq.GetTaskID(taskCtx)
	queue, _ := asynq.GetQueueName(taskCtx)
	def := c.definitions[queue]
	id, err := tasks.ParseRangeID(taskID)
	if err == nil && id.Run.Job != def.Name {
		err = fmt.Errorf("range id %q is not one of %s", taskID, def.Name)
	}
	metrics := c.w.metrics[def.Name]
	if err != nil {
		metrics.ranges[outcomeFailed].Inc()
		return refuse(c.log, def, err)
	}
	taskCtx, span := c.w.startSpan(taskCtx, "range of "+def.Name, task, telemetry.AttributeJobType.String(def.Name),
		telemetry.AttributeJobID.String(id.Run.String()), telemetry.AttributeRange.Int(id.Index))
	defer func() { endSpan(span, err) }()
	log := telemetry.LogTrace(taskCtx, c.log.With("job", def.Name, "jobId", id.Run.String(), "range", id.Index))
	ctx, end := s.context(taskCtx)
	defer end()

	var state *jobs.RangeState
	owner := jobs.NewOwner()
	err = s.insist(ctx, log, func(ctx context.Context) (err error) {
		state, err = c.w.jobs.OpenRange(ctx, id, owner)
		return err
	})
	switch {
	case errors.Is(err, jobs.ErrNoRange):
		log.Debug("Nothing left to do in a range")
		return nil
	case err != nil:
		return errGivenBack
	}
	run := &Run{
		ID: id.Run, Definition: def, Attempt: state.Failures + 1, Checkpoint: state.Checkpoint, Range: state.Spec,
		Stop: s.stopping, Log: log, save: state.Save, observe: c.w.observer(def),
	}
	if state.Recovered {
		metrics.recoveries[unitRange].Inc()
		log.Warn("Recovered range from a dead worker", "recoveries", state.Recoveries)
	}
	overdue := fmt.Errorf("its run exceeded its maximum duration of %s", def.MaxDuration)
	limited, lift := context.WithDeadlineCause(ctx, state.RunStarted.Add(def.MaxDuration), overdue)
	defer lift()
	result, err := c.work(limited, run, state, task.Payload())

	switch {
	case err == nil:
		return c.conclude(ctx, s, log, metrics.ranges[outcomeCompleted],
			func(ctx context.Context) error { return state.Complete(ctx, result) })
	case context.Cause(limited) == overdue: //nolint:errorlint // this very error, not one like it
		err = Permanent(overdue)
	case ctx.Err() != nil || errors.Is(err, ErrStopped) || errors.Is(err, ErrSuperseded):
		return c.giveBack(ctx, log, state)
	}
	if newer := new(tasks.NewerVersionError); errors.As(err, &newer) {
		// Who has cut the run understands it: there is such a worker.
		log.Warn("Leaving ranges to workers of a newer release", "reason", newer, "for", shunTime.String())
		c.shun(queue)
		return c.giveBack(ctx, log, state)
	}
	if run.Attempt >= def.Attempts || isPermanent(err) {
		log.Error("A range failed", "attempts", run.Attempt, "error", err)
		reason := fmt.Errorf("after %d attempts: %w", run.Attempt, err)
		return c.conclude(ctx, s, log, metrics.ranges[outcomeFailed],
			func(ctx context.Context) error { return state.Fail(ctx, reason) })
	}
	log.Warn("A range failed, will be tried again", "attempt", run.Attempt, "attempts", def.Attempts,
		"retryIn", def.RetryDelay(run.Attempt).String(), "error", err)
	switch recorded := s.insist(ctx, log, state.FailAttempt); {
	case errors.Is(recorded, jobs.ErrNoRange):
		return nil
	case recorded != nil:
		return errGivenBack
	}
	metrics.retries[unitRange].Inc()
	return failedAttempt{err, run.Attempt}
}

// work calls the processor. It returns the encoded result.
func (c *rangeConsumer) work(ctx context.Context, run *Run, state *jobs.RangeState, payload []byte) (result []byte, err error) {
	if state.Recoveries > maxRecoveries {
		return nil, Permanent(fmt.Errorf("given up: %d workers died or lost Redis during this range", state.Recoveries))
	}
	run.Payload, err = run.Definition.DecodePayload(payload)
	if newer := new(tasks.NewerVersionError); errors.As(err, &newer) {
		return nil, newer
	}
	if err != nil {
		return nil, Permanent(fmt.Errorf("invalid payload: %w", err))
	}
	value, err := c.w.process(ctx, run)
	if err != nil {
		return nil, err
	}
	if result, err = json.Marshal(value); err != nil {
		return nil, Permanent(fmt.Errorf("encoding the result: %w", err))
	}
	return result, nil
}

// conclude records the end of a range, and counts it.
func (c *rangeConsumer) conclude(ctx context.Context, s *session, log *slog.Logger, count prometheus.Counter, record func(context.Context) error) error {
	switch err := s.insist(ctx, log, record); {
	case err == nil:
		count.Inc()
	case !errors.Is(err, jobs.ErrNoRange):
		return errGivenBack
	}
	return nil
}

// giveBack lets go of a range: for the next attempt, or for good when its run has ended meanwhile.
func (c *rangeConsumer) giveBack(ctx context.Context, log *slog.Logger, state *jobs.RangeState) error {
	var gone error
	err := giveBack(ctx, log, "Range", func(ctx context.Context) error {
		gone = state.GiveBack(ctx)
		return gone
	})
	if errors.Is(gone, jobs.ErrNoRange) {
		return nil
	}
	return err
}

// runRanges is syncrun.Ranges for one run: recorded in the run's state, and enqueued for every worker.
type runRanges struct {
	session *session
	state   *jobs.RunState
	def     tasks.Definition
	id      tasks.RunID
	payload []byte // of the run, which its ranges carry as well
	log     *slog.Logger
}

var _ syncrun.Ranges = (*runRanges)(nil)

// insist waits for a Redis that is away.
func (r *runRanges) insist(ctx context.Context, f func(context.Context) error) error {
	err := r.session.insist(ctx, r.log, f)
	if errors.Is(err, jobs.ErrSuperseded) {
		return syncrun.ErrSuperseded
	}
	return err
}

// Cut implements syncrun.Ranges.
func (r *runRanges) Cut(ctx context.Context) (syncrun.Cut, error) {
	var cut jobs.Cut
	err := r.insist(ctx, func(ctx context.Context) (err error) {
		cut, err = r.state.Cut(ctx)
		return err
	})
	c := syncrun.Cut{Ranges: cut.Ranges, Complete: cut.Complete, Ended: cut.Ended, Progress: cut.Progress}
	if err == nil && cut.Ranges > 0 {
		c.Last, err = decodeRange(cut.Last)
	}
	return c, err
}

// Add implements syncrun.Ranges.
func (r *runRanges) Add(ctx context.Context, index int, part syncrun.Range, last bool) error {
	spec, err := json.Marshal(part)
	if err != nil {
		return fmt.Errorf("encoding range %d of run %s: %w", index, r.id, err)
	}
	err = r.insist(ctx, func(ctx context.Context) error { return r.state.AddRange(ctx, index, spec, last) })
	if err != nil {
		return err
	}
	return r.enqueue(ctx, index)
}

func (r *runRanges) enqueue(ctx context.Context, index int) error {
	return r.insist(ctx, func(ctx context.Context) error {
		return r.session.w.jobs.EnqueueRange(ctx, r.def, tasks.RangeID{Run: r.id, Index: index}, r.payload)
	})
}

// each calls f with what is known of each range, in their order.
func (r *runRanges) each(ctx context.Context, f func(index int, known jobs.RangeEnd) error) error {
	for from := 0; ; {
		var page []jobs.RangeEnd
		err := r.insist(ctx, func(ctx context.Context) (err error) {
			page, err = r.state.Ranges(ctx, from)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for i, known := range page {
			if err := f(from+i, known); err != nil {
				return err
			}
		}
		from += len(page)
	}
}

// Requeue implements syncrun.Ranges.
func (r *runRanges) Requeue(ctx context.Context) error {
	return r.each(ctx, func(index int, known jobs.RangeEnd) error {
		if known.Ended {
			return nil
		}
		return r.enqueue(ctx, index)
	})
}

// Ended implements syncrun.Ranges.
func (r *runRanges) Ended(ctx context.Context, f func(index int, ended syncrun.Ended)) error {
	return r.each(ctx, func(index int, known jobs.RangeEnd) error {
		ended := syncrun.Ended{Failure: known.Failure}
		if len(known.Checkpoint) > 0 {
			if err := json.Unmarshal(known.Checkpoint, &ended.Checkpoint); err != nil {
				return fmt.Errorf("reading what range %d of run %s has done: %w", index, r.id, err)
			}
		}
		f(index, ended)
		return nil
	})
}

// Discard implements syncrun.Ranges.
func (r *runRanges) Discard(ctx context.Context) error {
	return r.insist(ctx, r.state.DiscardRanges)
}

func decodeRange(spec []byte) (r syncrun.Range, err error) {
	if err := json.Unmarshal(spec, &r); err != nil {
		return r, fmt.Errorf("reading a range: %w", err)
	}
	return r, nil
}
