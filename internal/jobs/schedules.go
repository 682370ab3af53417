// Live schedules: those that a running scheduler shows.

package jobs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Repeatable is a job type's live schedule.
type Repeatable struct {
	Job  string
	Spec string
	// Every is the time between two ticks. It is 0 if they are not evenly spaced.
	Every time.Duration
	// Next is the time of the next tick.
	Next time.Time
}

// Schedules returns the live schedules of the registry's job types, at most one for each. If the schedulers differ, as during an
// upgrade, it returns the schedule with the earliest next tick. It only reads: asynq's own answer also removes the entries of
// dead schedulers, which a Redis that refuses writes does not allow.
func (j *Jobs) Schedules(ctx context.Context, now time.Time) ([]Repeatable, error) {
	entries, err := j.schedulerEntries(ctx)
	if err != nil {
		return nil, err
	}
	var schedules []Repeatable
	for _, e := range entries {
		if !j.owns(e) {
			continue
		}
		// asynq's own Next is some seconds old. For intervals below a minute it is not aligned to the clock.
		next := Repeatable{Job: e.job, Spec: e.spec, Every: tasks.SpecEvery(e.spec, now), Next: tasks.SpecNext(e.spec, now)}
		i := slices.IndexFunc(schedules, func(s Repeatable) bool { return s.Job == next.Job })
		switch {
		case i < 0:
			schedules = append(schedules, next)
		case next.Next.Before(schedules[i].Next):
			schedules[i] = next
		}
	}
	return schedules, nil
}

// schedulerEntry is an entry that a live Scheduler of asynq shows.
type schedulerEntry struct {
	id, job, spec string
	options       []string // such as Queue("user-sync")
}

// owns reports whether a scheduler of this deployment shows the entry. asynq has one list for all that use the Redis.
func (j *Jobs) owns(e schedulerEntry) bool {
	def, known := j.registry.Lookup(e.job)
	return known && slices.Contains(e.options, asynq.Queue(def.Queue()).String())
}

// schedulerEntries returns the entries of asynq's live Schedulers, ours and others.
func (j *Jobs) schedulerEntries(ctx context.Context) ([]schedulerEntry, error) {
	live := &redis.ZRangeBy{Min: strconv.FormatInt(time.Now().Unix(), 10), Max: "+inf"}
	keys, err := j.rdb.ZRangeByScore(ctx, asynqSchedulers, live).Result()
	if err != nil {
		return nil, fmt.Errorf("listing schedulers: %w", err)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	var answers []*redis.StringSliceCmd
	_, err = j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			answers = append(answers, p.LRange(ctx, key, 0, -1))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing scheduler entries: %w", err)
	}
	var entries []schedulerEntry
	for _, answer := range answers {
		for _, encoded := range answer.Val() {
			if e, ok := decodeEntry([]byte(encoded)); ok {
				entries = append(entries, e)
			}
		}
	}
	return entries, nil
}

// The fields of asynq's message SchedulerEntry. It also has the payload, and the next and the previous time.
const (
	entryID, entrySpec, entryType, entryOption protowire.Number = 1, 2, 3, 5
)

// decodeEntry decodes asynq's message. It returns false for one that is damaged.
func decodeEntry(encoded []byte) (e schedulerEntry, ok bool) {
	for len(encoded) > 0 {
		number, kind, n := protowire.ConsumeTag(encoded)
		if n < 0 {
			return e, false
		}
		encoded = encoded[n:]
		length := protowire.ConsumeFieldValue(number, kind, encoded)
		if length < 0 {
			return e, false
		}
		if kind == protowire.BytesType {
			text, _ := protowire.ConsumeBytes(encoded)
			switch number {
			case entryID:
				e.id = string(text)
			case entrySpec:
				e.spec = string(text)
			case entryType:
				e.job = string(text)
			case entryOption:
				e.options = append(e.options, string(text))
			}
		}
		encoded = encoded[length:]
	}
	return e, e.job != ""
}

// Scheduled is a job type's live schedule and where it is.
type Scheduled struct {
	Repeatable
	// Previous is the time of the latest tick that was handled. It is zero if none ever was.
	Previous time.Time
	// Paused is true while the job type is paused.
	Paused bool
}

// ListSchedules returns the live schedules, in the order of the registry.
func (j *Jobs) ListSchedules(ctx context.Context) ([]Scheduled, error) {
	live, err := j.Schedules(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	var list []Scheduled
	for _, def := range j.registry.All() {
		i := slices.IndexFunc(live, func(r Repeatable) bool { return r.Job == def.Name })
		if i < 0 {
			continue
		}
		s := Scheduled{Repeatable: live[i]}
		if s.Previous, err = j.LastTick(ctx, def); err != nil {
			return nil, err
		}
		if s.Paused, err = j.IsPaused(ctx, def); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
