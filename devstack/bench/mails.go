// This section measures how well several workers share many small runs.

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/codex-api/codex-jobs/devstack/bench/slowjobs"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// mails is how many mails wait when their job type is resumed, and mailWorkers is how many workers share them.
	mails       = 100
	mailWorkers = 3
	// mailTimeout bounds the wait for their end, and mailPoll is the time between two looks.
	mailTimeout = time.Minute
	mailPoll    = 50 * time.Millisecond
	mailRounds  = 5
)

// measureMails measures how long many mails take that all wait, from the resumption of their job type to the end of the last one,
// against the time that they take at least.
func (b *bench) measureMails(ctx context.Context) error {
	registry, err := jobtype.Registry(jobtype.All(slowjobs.Types(0)))
	if err != nil {
		return err
	}
	def, _ := registry.Lookup(slowjobs.Mail)
	j := jobs.New(b.rdb, registry, quiet())
	var workers []spec
	for range mailWorkers {
		workers = append(workers, spec{program: slowProgram, ready: procs.Ready(procs.Worker), settings: settings{"JOB_KEEP_COMPLETED": strconv.Itoa(mails)}})
	}
	var took []float64
	err = b.with(ctx, workers, func(ctx context.Context, _ []*procs.Process) error {
		for round := range mailRounds {
			d, err := sendMails(ctx, j, def, round)
			if err != nil {
				return err
			}
			b.progress.say("%d mails of %v, %d workers with %d at a time, round %d: %s", mails, slowjobs.MailTime, mailWorkers,
				slowjobs.MailsPerWorker, round+1, rounded(d))
			took = append(took, d.Seconds())
		}
		return nil
	})
	if err != nil {
		return err
	}
	atOnce := mailWorkers * slowjobs.MailsPerWorker
	least := time.Duration((mails+atOnce-1)/atOnce) * slowjobs.MailTime
	b.report.add(figure{
		Section: "mails", What: fmt.Sprintf("%d mails of %v, %d workers, %d at a time", mails, slowjobs.MailTime, mailWorkers, slowjobs.MailsPerWorker),
		Value: median(took), Unit: "s", Against: "no time between two mails", AgainstValue: least.Seconds(),
	})
	return nil
}

// sendMails enqueues mails while their job type is paused, and returns the time from its resumption to the last end.
func sendMails(ctx context.Context, j *jobs.Jobs, def tasks.Definition, round int) (time.Duration, error) {
	if err := j.Pause(ctx, def, jobs.Trigger{}); err != nil {
		return 0, err
	}
	own := make(map[string]bool)
	for i := range mails {
		accepted, err := j.Trigger(ctx, def, &tasks.TypedPayload[slowjobs.Letter]{Value: slowjobs.Letter{Number: round*mails + i}})
		if err != nil {
			return 0, err
		}
		own[accepted.ID.String()] = true
	}
	resumed := time.Now()
	if err := j.Resume(ctx, def, jobs.Trigger{}); err != nil {
		return 0, err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, mailTimeout, errors.New("the mails did not all end"))
	defer cancel()
	for {
		page, _, err := j.List(waiting, jobs.Filter{
			Jobs: []tasks.Definition{def}, States: []jobs.State{jobs.StateCompleted}, Page: 1, PageSize: mails,
		})
		if err != nil {
			return 0, err
		}
		ended, last := 0, resumed
		for _, run := range page {
			if own[run.ID.String()] {
				ended++
				if run.Ended.After(last) {
					last = run.Ended
				}
			}
		}
		if ended == mails {
			return last.Sub(resumed), nil
		}
		select {
		case <-time.After(mailPoll):
		case <-waiting.Done():
			return 0, context.Cause(waiting)
		}
	}
}
