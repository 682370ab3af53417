// When a lost worker's run is put back. asynq keeps a lease of each active task. A live worker renews it every 5 s, so it tells that a
// worker is lost, and since when, long before another one takes over.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// staleLease is how long the rest of a task's lease is if its worker was last heard of when a process stops to count as live.
	staleLease = taskLease - heartbeatTTL
	// putBackTime is how long after rescueGrace another worker puts the task back at the latest, also on a busy machine: with the lease and
	// the grace that makes the 75 s of docs/reliability.md.
	putBackTime = 15 * time.Second
	// maxLostRanges is at how many ranges of lost workers a list looks.
	maxLostRanges = 1000
)

// stale is a task of an active run whose lease was not renewed for some time.
type stale struct {
	job   *Job
	task  string
	lease time.Time // its end
}

// addRescues marks each active run that has lost its worker, or the worker of one of its ranges, and adds the latest time at which a live
// worker puts the task back into its queue. Pauses and other jobs do not delay that. Without a live worker there is no such time.
// It costs a round trip if there are active runs, and some more if a worker is lost.
func (j *Jobs) addRescues(ctx context.Context, list []Job) error {
	found, err := j.findStale(ctx, list)
	if err != nil || len(found) == 0 {
		return err
	}
	processes, err := j.Processes(ctx)
	if err != nil {
		return err
	}
	workers, working := 0, make(map[string]bool)
	for _, p := range processes {
		if p.Role == RoleWorker {
			workers++
		}
		for _, task := range p.Doing {
			working[task] = true
		}
	}
	stuck := make(map[*Job]bool)
	for _, s := range found {
		if working[s.task] { // its worker lives, and has another clock
			continue
		}
		s.job.WorkerLost = true
		within := time.Until(s.lease.Add(rescueGrace + putBackTime))
		stuck[s.job] = stuck[s.job] || within <= 0 || workers == 0
		s.job.RescueWithin = max(s.job.RescueWithin, within)
	}
	for job := range stuck {
		if stuck[job] {
			job.RescueWithin = 0
		}
	}
	return nil
}

// findStale returns the tasks of the active runs of the list, and of their ranges, whose lease was not renewed for some time.
func (j *Jobs) findStale(ctx context.Context, list []Job) ([]stale, error) {
	type answer struct {
		stale
		run    *redis.FloatCmd
		ranges *redis.ZSliceCmd
	}
	var answers []answer
	since := time.Now().Add(staleLease).Unix()
	pipeline := j.rdb.Pipeline()
	for i := range list {
		job := &list[i]
		def, known := j.registry.Lookup(job.ID.Job)
		if job.State != StateActive || !known {
			continue
		}
		a := answer{stale: stale{job: job, task: job.ID.String()}}
		a.run = pipeline.ZScore(ctx, asynqKey(def.Queue(), "lease"), a.task)
		if job.RangesEnded < job.Ranges {
			a.ranges = pipeline.ZRangeByScoreWithScores(ctx, asynqKey(def.RangeQueue(), "lease"),
				&redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(since, 10), Count: maxLostRanges})
		}
		answers = append(answers, a)
	}
	if len(answers) == 0 {
		return nil, nil
	}
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("looking for runs of lost workers: %w", err)
	}
	var found []stale
	for _, a := range answers {
		if until, err := a.run.Result(); err == nil && int64(until) <= since {
			a.lease = time.Unix(int64(until), 0)
			found = append(found, a.stale)
		}
		if a.ranges == nil {
			continue
		}
		for _, z := range a.ranges.Val() {
			if task := fmt.Sprint(z.Member); strings.HasPrefix(task, a.job.ID.String()+"/") {
				found = append(found, stale{job: a.job, task: task, lease: time.Unix(int64(z.Score), 0)})
			}
		}
	}
	return found, nil
}
