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
	// firstRepair is how long after its start a process looks for the first time. The start has other things to do.
	firstRepair = 10 * time.Second
	// repairPage is how many entries of each list of a queue one script looks at. Redis serves no other client meanwhile.
	repairPage = 500
	// maintainTimeout bounds one round of Maintain.
	maintainTimeout = 30 * time.Second
)

// isDamaged is a part of scripts: it says whether a task is damaged, and so useless. Its hash is not there, has no
// message, or one without the task's ID, which asynq cannot decode. ARGV: key of the task, ID.
const isDamaged = `
local function damaged(key, id)
	local message = redis.call("HGET", key, "msg")
	return not message or not string.find(message, id, 1, true)
end
`

// KEYS: lease, pending, active, scheduled, retry, archived, completed. ARGV: prefix of the tasks' keys, first index, number of
// entries of each list. Returns {the largest number of entries of a list that it looked at, IDs of the removed entries}.
var repairScript = redis.NewScript(isDamaged + `
local first, last = tonumber(ARGV[2]), tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1
local looked, removed = 0, {}
for i = 2, 7 do
	local list = i <= 3
	local ids = redis.call(list and "LRANGE" or "ZRANGE", KEYS[i], first, last)
	looked = math.max(looked, #ids)
	for _, id in ipairs(ids) do
		if damaged(ARGV[1] .. id, id) then
			if list then
				redis.call("LREM", KEYS[i], 0, id)
			else
				redis.call("ZREM", KEYS[i], id)
			end
			redis.call("ZREM", KEYS[1], id)
			redis.call("UNLINK", ARGV[1] .. id)
			table.insert(removed, id)
		end
	end
end
return {looked, removed}
`)

// Maintain makes asynq know the queues of all job types, again and again, because Redis can lose them. Once a minute it removes
// the entries of queues whose task is damaged. It ends with ctx. Any number of processes can call it: one of them does the
// repair. Other code reports a Redis that does not serve.
func (j *Jobs) Maintain(ctx context.Context) {
	ticker := time.NewTicker(registerInterval)
	defer ticker.Stop()
	repaired := time.Now().Add(firstRepair - repairInterval)
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
	keys := []string{asynqKey(queue, "lease")}
	for _, list := range []string{"pending", "active", "scheduled", "retry", "archived", "completed"} {
		keys = append(keys, asynqKey(queue, list))
	}
	for from := 0; ; {
		reply, err := repairScript.Run(ctx, j.rdb, keys, asynqKey(queue, "t:"), strconv.Itoa(from), repairPage).Slice()
		if err != nil {
			return fmt.Errorf("repairing the queue %s: %w", queue, err)
		}
		removed := texts(reply[1])
		j.logRemoved(queue, removed)
		if looked, _ := reply[0].(int64); looked < repairPage { // the script returns this type
			return nil
		}
		from += max(0, repairPage-len(removed))
	}
}

// logRemoved logs which tasks of a queue were removed, if any were.
func (j *Jobs) logRemoved(queue string, ids []string) {
	if len(ids) > 0 {
		j.log.Warn("Removed tasks of which only the ID was left", "queue", queue, "ids", ids)
	}
}
