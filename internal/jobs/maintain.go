// What every process does for a Redis that is not as it was: after a FLUSHALL, a queue that was deleted on the dashboard, an
// eviction or a crash of Redis. The queues are made known to asynq again, and entries whose task is damaged are removed.

package jobs

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// registerInterval is how long a queue that Redis has lost stays unknown to asynq.
	registerInterval = 5 * time.Second
	// repairInterval is the time between two looks for damaged tasks, over all processes.
	repairInterval = time.Minute
	// repairPage is how many entries of a queue's list one script looks at. Redis serves no other client meanwhile.
	repairPage = 500
	// maintainTimeout bounds one round of Maintain.
	maintainTimeout = 30 * time.Second
)

// isDamaged is a part of scripts: it says whether a task is damaged, and so of use to nobody. Its hash is not there, has no
// message, or one without the task's ID, which asynq cannot decode. ARGV: key of the task, ID.
const isDamaged = `
local function damaged(key, id)
	local message = redis.call("HGET", key, "msg")
	return not message or not string.find(message, id, 1, true)
end
`

// KEYS: list, lease. ARGV: "list" or "zset", prefix of the tasks' keys, first index, number. Returns {number of entries that
// it looked at, IDs of the removed entries}.
var repairScript = redis.NewScript(isDamaged + `
local first, last = tonumber(ARGV[3]), tonumber(ARGV[3]) + tonumber(ARGV[4]) - 1
local list = ARGV[1] == "list"
local ids = redis.call(list and "LRANGE" or "ZRANGE", KEYS[1], first, last)
local removed = {}
for _, id in ipairs(ids) do
	if damaged(ARGV[2] .. id, id) then
		if list then
			redis.call("LREM", KEYS[1], 0, id)
		else
			redis.call("ZREM", KEYS[1], id)
		end
		redis.call("ZREM", KEYS[2], id)
		redis.call("UNLINK", ARGV[2] .. id)
		table.insert(removed, id)
	end
end
return {#ids, removed}
`)

// Maintain makes asynq know the queues of all job types, again and again, because Redis can lose them. Once a minute it removes
// the entries of queues whose task is damaged. It ends with ctx. Any number of processes can call it: one of them does the
// repair. Other code reports a Redis that does not serve.
func (j *Jobs) Maintain(ctx context.Context) {
	ticker := time.NewTicker(registerInterval)
	defer ticker.Stop()
	var repaired time.Time
	for {
		round, cancel := context.WithTimeout(ctx, maintainTimeout)
		err := j.Register(round)
		if err == nil && time.Since(repaired) >= repairInterval {
			repaired = time.Now()
			err = j.repairInTurn(round)
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			j.log.Debug("Could not maintain the queues", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// repairInTurn repairs the queues of each job type that no other process has just repaired.
func (j *Jobs) repairInTurn(ctx context.Context) error {
	for _, def := range j.registry.All() {
		// A process looks a bit less often than once in repairInterval. So its own mark must not be in its way.
		first, err := j.rdb.SetNX(ctx, j.keys.repaired(def.Name), 1, repairInterval-2*registerInterval).Result()
		if err != nil {
			return fmt.Errorf("repairing the queues of %s: %w", def.Name, err)
		}
		if !first {
			continue
		}
		for _, queue := range []string{def.Queue(), def.RangeQueue()} {
			if err := j.repair(ctx, queue); err != nil {
				return err
			}
		}
	}
	return nil
}

// repair removes the entries of a queue whose task is damaged, and logs their IDs.
func (j *Jobs) repair(ctx context.Context, queue string) error {
	for _, list := range []struct{ name, kind string }{
		{"active", "list"}, {"pending", "list"}, {"scheduled", "zset"}, {"retry", "zset"}, {"archived", "zset"}, {"completed", "zset"},
	} {
		for from := 0; ; {
			reply, err := repairScript.Run(ctx, j.rdb, []string{asynqKey(queue, list.name), asynqKey(queue, "lease")},
				list.kind, asynqKey(queue, "t:"), strconv.Itoa(from), repairPage).Slice()
			if err != nil {
				return fmt.Errorf("repairing %s of %s: %w", list.name, queue, err)
			}
			removed := texts(reply[1])
			j.logRemoved(queue, removed)
			looked, _ := reply[0].(int64) // the script returns this type
			if looked < repairPage {
				break
			}
			from += repairPage - len(removed)
		}
	}
	return nil
}

// logRemoved logs which tasks of a queue were removed, if any were.
func (j *Jobs) logRemoved(queue string, ids []string) {
	if len(ids) > 0 {
		j.log.Warn("Removed tasks that were damaged", "queue", queue, "ids", ids)
	}
}
