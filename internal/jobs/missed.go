// Missed ticks. The scheduler writes its schedules down, and any other process compares them with the ticks that were handled: the
// scheduler may be what is dead.

package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// MissedGrace is how long a tick is overdue before it counts as missed: a scheduler that is replaced has caught up long before.
	MissedGrace = 2 * time.Minute
	// MissedInterval is the time between two looks at the ticks. A tick is missed if both find it so: a scheduler needs a moment to
	// catch up after an outage of Redis.
	MissedInterval = 15 * time.Second
	// missedTimeout bounds one look.
	missedTimeout = 5 * time.Second
)

// KEYS: schedule, mark. ARGV: spec, now (ms). Keeps since when the schedule is this one. It writes nothing while no worker notifies.
var recordScheduleScript = redis.NewScript(`
if redis.call("EXISTS", KEYS[2]) == 1 and redis.call("HGET", KEYS[1], "spec") ~= ARGV[1] then
	redis.call("HSET", KEYS[1], "spec", ARGV[1], "since", ARGV[2])
end
return 1
`)

// KEYS: missed, mark, notices. ARGV: time of the last tick that was handled (ms), notice, TTL. Returns 1 if it added the notice: there
// is one for each outage, however many processes notice it.
var noteMissedScript = redis.NewScript(note + `
if redis.call("GET", KEYS[1]) == ARGV[1] then
	return 0
end
redis.call("SET", KEYS[1], ARGV[1], "EX", ARGV[3])
note(KEYS[2], KEYS[3], ARGV[2], ARGV[3])
return 1
`)

// RecordSchedule writes the schedule of a job type down, or that it has none. A scheduler calls it again and again, as Redis can lose
// it.
func (j *Jobs) RecordSchedule(ctx context.Context, def tasks.Definition) error {
	var err error
	if key := j.keys.schedule(def.Name); def.Schedule.Enabled() {
		err = recordScheduleScript.Run(ctx, j.rdb, []string{key, j.keys.notifies(def.Name)}, def.Schedule.Spec(), millis(time.Now())).Err()
	} else {
		err = j.rdb.Del(ctx, key).Err()
	}
	if err != nil {
		return fmt.Errorf("recording the schedule of %s: %w", def.Name, err)
	}
	return nil
}

// overdue is a tick that was due, and was not handled.
type overdue struct {
	job, spec string
	// tick is the tick that was handled last, zero for none. last is that, or a later beginning of the schedule, and first the tick that
	// had to follow it.
	tick, last, first time.Time
}

// WatchTicks notices when ticks are missed, and adds one notice for each outage, until ctx ends. Any number of processes can do so.
// The ticks of a job type that is paused, or whose schedule is switched off, are not missed. Programs use MissedGrace and
// MissedInterval.
func (j *Jobs) WatchTicks(ctx context.Context, grace, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	before := make(map[overdue]bool)
	for {
		found, err := j.lookAtTicks(ctx, grace, before)
		if err != nil && ctx.Err() == nil { // other code reports a Redis that is away
			j.log.Debug("Could not look for missed ticks", "error", err)
		}
		before = found
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtTicks returns the ticks that are overdue by more than the grace, and notes those that were so before.
func (j *Jobs) lookAtTicks(ctx context.Context, grace time.Duration, before map[overdue]bool) (map[overdue]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, missedTimeout)
	defer cancel()
	all, err := j.overdueTicks(ctx, grace)
	if err != nil {
		return nil, err
	}
	found := make(map[overdue]bool)
	for _, o := range all {
		found[o] = true
		if !before[o] {
			continue
		}
		data := EventData{Job: o.job, Schedule: o.spec, Missed: o.first.Format(tasks.TimestampLayout)}
		if !o.tick.IsZero() {
			data.Previous = o.tick.Format(tasks.TimestampLayout)
		}
		text := newNotice(EventTicksMissed, o.first, time.Now(), data, o.job, millis(o.last))
		keys := []string{j.keys.missed(o.job), j.keys.notifies(o.job), j.keys.notices(o.job)}
		n, err := noteMissedScript.Run(ctx, j.rdb, keys, millis(o.last), text, noticeSeconds).Int()
		if err != nil {
			return found, fmt.Errorf("noting that ticks of %s are missed: %w", o.job, err)
		}
		if n == 1 {
			j.log.Warn("Ticks are missed: no scheduler enqueues them", "job", o.job, "schedule", o.spec, "missed", o.first.Format(tasks.TimestampLayout))
		}
	}
	return found, nil
}

// overdueTicks asks Redis once. It compares with Redis' clock, which is the same for all processes.
func (j *Jobs) overdueTicks(ctx context.Context, grace time.Duration) (all []overdue, err error) {
	type answer struct {
		schedule         *redis.SliceCmd
		tick             *redis.StringCmd
		paused, notifies *redis.IntCmd
	}
	var answers []answer
	var clock *redis.TimeCmd
	definitions := j.registry.All()
	_, err = j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock = p.Time(ctx)
		for _, def := range definitions {
			answers = append(answers, answer{
				p.HMGet(ctx, j.keys.schedule(def.Name), "spec", "since"), p.Get(ctx, j.keys.tick(def.Name)),
				p.Exists(ctx, asynqKey(def.Queue(), "paused")), p.Exists(ctx, j.keys.notifies(def.Name)),
			})
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("looking at the ticks: %w", err)
	}
	for i, a := range answers {
		// The error is that of the first command. Behind a tick that is not there, another node of a cluster can have failed.
		if a.schedule.Err() != nil || a.paused.Err() != nil || a.notifies.Err() != nil || a.tick.Err() != nil && !errors.Is(a.tick.Err(), redis.Nil) {
			continue
		}
		spec, _ := a.schedule.Val()[0].(string)
		if spec == "" || a.paused.Val() > 0 || a.notifies.Val() == 0 {
			continue
		}
		o := overdue{job: definitions[i].Name, spec: spec, last: time.UnixMilli(int64(number(a.schedule, 1))).UTC()}
		if ms, err := a.tick.Int64(); err == nil {
			o.tick = time.UnixMilli(ms).UTC()
		}
		if o.tick.After(o.last) {
			o.last = o.tick
		}
		if o.first = tasks.SpecNext(spec, o.last); !o.first.IsZero() && clock.Val().Sub(o.first) > grace {
			all = append(all, o)
		}
	}
	return all, nil
}
