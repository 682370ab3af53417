package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// Waiting for a job, also while the API is away.

// maxPause is the longest pause between two attempts to reach an API that is away.
const maxPause = 8 * time.Second

// wait shows a job's progress until it has ended, and prints the job. It returns a failure when the job failed or was
// cancelled.
func (a *app) wait(ctx context.Context, api *client.Client, id string) error {
	j, err := a.follow(ctx, api, id)
	if err != nil {
		return err
	}
	if err := a.printJob(j); err != nil {
		return err
	}
	switch {
	case j.Cancelled():
		return failure{fmt.Errorf("job %s was cancelled", id)}
	case j.State == client.StateFailed:
		return failure{fmt.Errorf("job %s failed: %s", id, j.Error)}
	}
	return nil
}

// follow asks for the job until it has ended.
func (a *app) follow(ctx context.Context, api *client.Client, id string) (client.Job, error) {
	shown := newProgress(a.Err, a.Now)
	defer shown.end()
	var last client.Job
	var away time.Time // since when the server is
	pause := a.Poll
	for {
		j, err := api.Job(ctx, id)
		switch {
		case err == nil:
			if !away.IsZero() {
				shown.note("the server is back")
			}
			shown.job(j)
			if j.State.Ended() {
				return j, nil
			}
			last, away, pause = j, time.Time{}, a.Poll
		case ctx.Err() != nil:
			return last, leftRunning(id)
		case client.IsNotFound(err) && (last.State == client.StateWaiting || last.State == client.StateDelayed):
			return last, failure{fmt.Errorf("job %s was cancelled: it no longer exists, and had not ended", id)}
		case client.IsNotFound(err) && last.State == client.StateActive:
			return last, fmt.Errorf("job %s is no longer kept, so how it ended is not known: %w", id, err)
		case !client.Temporary(err):
			return last, err
		default:
			if away.IsZero() {
				away = time.Now()
				shown.note(line(err.Error()) + "; trying again")
				break
			}
			if time.Since(away) >= a.RetryFor {
				return last, fmt.Errorf("%w, for %s; the job may go on without it", err, a.RetryFor)
			}
			pause = min(2*pause, maxPause)
		}
		if !sleep(ctx, pause) {
			return last, leftRunning(id)
		}
	}
}

func leftRunning(id string) error {
	return errors.New("interrupted; the job goes on; to wait for it again: codexctl job " + id + " --wait")
}
