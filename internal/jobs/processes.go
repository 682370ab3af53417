// Which workers and schedulers live.

package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Role is what a process does in the system.
type Role string

// The roles. An API has none: it sends no heartbeat.
const (
	RoleWorker    Role = "worker"
	RoleScheduler Role = "scheduler"
)

const (
	// HeartbeatInterval is the time between two heartbeats of a process.
	HeartbeatInterval = 2 * time.Second
	// heartbeatTTL is how long a process counts as live after its last heartbeat.
	heartbeatTTL = 10 * time.Second
)

// KEYS: processes. ARGV: ID, TTL (ms). It removes processes that are not live any more, and those with a time of a broken clock.
// All times of heartbeats are Redis': by a clock that is an hour ahead a process would look live for an hour after its end.
var heartbeatScript = redis.NewScript(`
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call("ZADD", KEYS[1], string.format("%.0f", now), ARGV[1])
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", "(" .. string.format("%.0f", now - ARGV[2]))
redis.call("ZREMRANGEBYSCORE", KEYS[1], "(" .. string.format("%.0f", now + ARGV[2]), "+inf")
return 1
`)

// About is what a process says of itself.
type About struct {
	// Version is its release.
	Version string `json:"version"`
	// Started is when it started, in ms.
	Started int64 `json:"started"`
	// Doing is the IDs of the runs and ranges that it works on, sorted.
	Doing []string `json:"doing,omitempty"`
}

// Heartbeat records that the process with the ID lives, and what it says of itself.
func (j *Jobs) Heartbeat(ctx context.Context, role Role, id string, about About) error {
	text, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("heartbeat of %s %s: %w", role, id, err)
	}
	// On a cluster the two keys can be on different nodes.
	if err := j.rdb.Set(ctx, j.keys.process(role, id), text, heartbeatTTL).Err(); err != nil {
		return fmt.Errorf("heartbeat of %s %s: %w", role, id, err)
	}
	if err := heartbeatScript.Run(ctx, j.rdb, []string{j.keys.processes(role)}, id, heartbeatTTL.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("heartbeat of %s %s: %w", role, id, err)
	}
	return nil
}

// Leave records that the process with the ID has ended.
func (j *Jobs) Leave(ctx context.Context, role Role, id string) error {
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, j.keys.processes(role), id)
		p.Del(ctx, j.keys.process(role, id))
		return nil
	})
	if err != nil {
		return fmt.Errorf("leaving as %s %s: %w", role, id, err)
	}
	return nil
}

// Live returns the number of live processes of the role.
func (j *Jobs) Live(ctx context.Context, role Role) (int, error) {
	within, err := j.live(ctx)
	if err != nil {
		return 0, err
	}
	n, err := j.rdb.ZCount(ctx, j.keys.processes(role), within.Min, within.Max).Result()
	if err != nil {
		return 0, fmt.Errorf("counting live %ss: %w", role, err)
	}
	return int(n), nil
}

// live returns which heartbeats are those of live processes.
func (j *Jobs) live(ctx context.Context) (*redis.ZRangeBy, error) {
	now, err := j.RedisTime(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for live processes: %w", err)
	}
	return &redis.ZRangeBy{Min: millis(now.Add(-heartbeatTTL)), Max: millis(now.Add(heartbeatTTL))}, nil
}

// Process is a live process of the system.
type Process struct {
	Role Role
	// ID is what NewProcessID returned: host, process ID and a random text, with colons between them.
	ID string
	// Seen is the time of its last heartbeat.
	Seen time.Time
	// About is zero for a process of a release that says nothing of itself.
	About
}

// Processes returns the live processes, sorted by role and ID.
func (j *Jobs) Processes(ctx context.Context) ([]Process, error) {
	within, err := j.live(ctx)
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, role := range []Role{RoleScheduler, RoleWorker} {
		live, err := j.rdb.ZRangeByScoreWithScores(ctx, j.keys.processes(role), within).Result()
		if err != nil {
			return nil, fmt.Errorf("listing live %ss: %w", role, err)
		}
		first := len(all)
		for _, z := range live {
			all = append(all, Process{Role: role, ID: fmt.Sprint(z.Member), Seen: time.UnixMilli(int64(z.Score)).UTC()})
		}
		slices.SortFunc(all[first:], func(a, b Process) int { return strings.Compare(a.ID, b.ID) })
	}
	said := make([]*redis.StringCmd, len(all))
	_, err = j.rdb.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
		for i, p := range all {
			said[i] = pipeline.Get(ctx, j.keys.process(p.Role, p.ID))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("asking what the live processes do: %w", err)
	}
	for i := range all {
		_ = json.Unmarshal([]byte(said[i].Val()), &all[i].About) // of another release, it may say nothing
	}
	return all, nil
}

// LiveHere returns an error if no process of the role lives on this host.
func (j *Jobs) LiveHere(ctx context.Context, role Role) error {
	within, err := j.live(ctx)
	if err != nil {
		return err
	}
	live, err := j.rdb.ZRangeByScore(ctx, j.keys.processes(role), within).Result()
	if err != nil {
		return fmt.Errorf("looking for a live %s: %w", role, err)
	}
	for _, id := range live {
		if strings.HasPrefix(id, hostPrefix()) {
			return nil
		}
	}
	return fmt.Errorf("no %s on this host has been heard of for %s", role, heartbeatTTL)
}

// HeartbeatLoop sends heartbeats, with what about returns, until ctx ends, and then leaves. A Redis that does not answer is only worth a line for
// debugging: other code reports it.
func (j *Jobs) HeartbeatLoop(ctx context.Context, role Role, id string, about func() About) {
	ticker := time.NewTicker(HeartbeatInterval)
	defer ticker.Stop()
	for {
		if err := j.Heartbeat(ctx, role, id, about()); err != nil && ctx.Err() == nil {
			j.log.Debug("Heartbeat failed", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := j.Leave(leaving, role, id); err != nil {
				j.log.Debug("Could not take leave", "error", err)
			}
			return
		}
	}
}

// NewProcessID returns a new ID for this process: host, process ID and a random text.
func NewProcessID() string {
	return hostPrefix() + strconv.Itoa(os.Getpid()) + ":" + rand.Text()[:6]
}

// hostPrefix begins the IDs of this host's processes.
func hostPrefix() string {
	hostname, _ := os.Hostname() // "" would make all processes look like those of one host
	return hostname + ":"
}

// RemoveDeadHistories deletes what asynq's Schedulers leave when they are killed: histories, which never expire. Schedulers of
// this release have no history, because they enqueue nothing. Those of the previous release have one, and lose a few seconds
// of it if they have just been started. They have no namespace. The histories of others' schedulers stay.
func (j *Jobs) RemoveDeadHistories(ctx context.Context) error {
	if j.registry.Namespace() != "" {
		return nil
	}
	entries, err := j.schedulerEntries(ctx)
	if err != nil {
		return err
	}
	live := make(map[string]bool, len(entries))
	for _, e := range entries {
		live[historyPrefix+e.id] = true
	}
	return redisconn.EachMaster(ctx, j.rdb, func(ctx context.Context, node redis.UniversalClient) error {
		keys := node.Scan(ctx, 0, historyPrefix+"*", 0).Iterator()
		for keys.Next(ctx) {
			if live[keys.Val()] || j.isForeign(keys.Val()) {
				continue
			}
			if err := j.rdb.Del(ctx, keys.Val()).Err(); err != nil {
				return fmt.Errorf("removing %s: %w", keys.Val(), err)
			}
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("looking for histories of dead schedulers: %w", err)
		}
		return nil
	})
}

// isForeign reports whether the history is another product's: its events enqueued tasks that are no runs of ours.
func (j *Jobs) isForeign(history string) bool {
	events, err := j.inspector.ListSchedulerEnqueueEvents(strings.TrimPrefix(history, historyPrefix), asynq.PageSize(1))
	if err != nil || len(events) == 0 {
		return false
	}
	id, err := tasks.ParseRunID(events[0].TaskID)
	if err != nil {
		return true
	}
	_, known := j.registry.Lookup(id.Job)
	return !known
}
