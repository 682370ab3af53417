// How a worker learns that there is work. Code that puts a task into a queue announces the queue, and once a second a worker
// looks for what was not announced. The look also puts back retries that are due and the tasks of lost
// workers, because asynq's forwarder and recoverer only run within a Server.

package jobs

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// rescueGrace is how long after the end of asynq's lease a task counts as lost. It is asynq's own grace: clocks differ.
	rescueGrace = 30 * time.Second
	// taskLease is how long asynq's lease of a task lasts if it is not renewed.
	taskLease = 30 * time.Second
	// subscribeTimeout bounds the wait until the announcements are subscribed to.
	subscribeTimeout = time.Second
	// findLimit is how many tasks of each list one look puts back.
	findLimit = 100
)

// announce tells the workers that a queue has something to do, and makes asynq know the queue. A worker that does not hear it
// looks within a second anyway, and Maintain registers the queues, so an error does no harm.
func (j *Jobs) announce(ctx context.Context, queue string) {
	_, err := j.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.SAdd(ctx, asynqQueues, queue)
		p.Publish(ctx, j.keys.work(), queue)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		j.log.Debug("Could not announce work", "queue", queue, "error", err)
	}
}

// Channel returns the name of the channel of announcements.
func (j *Jobs) Channel() string { return j.keys.work() }

// Announcements returns a channel with the names of queues that have something to do, and with what RunState.RangesEnded returns. The caller must call stop. While Redis is
// away, announcements are lost. After Announcements has returned none is, unless Redis did not answer within a second.
func (j *Jobs) Announcements(ctx context.Context) (queues <-chan *redis.Message, stop func() error) {
	subscription := j.rdb.Subscribe(ctx, j.Channel())
	_, _ = subscription.ReceiveTimeout(ctx, subscribeTimeout) // that it is subscribed; the client goes on trying
	return subscription.Channel(), subscription.Close
}

// HasTasks reports for each queue whether it has tasks that have not ended. It costs one command for each queue.
func (j *Jobs) HasTasks(ctx context.Context, queues []string) ([]bool, error) {
	pipeline := j.rdb.Pipeline()
	for _, queue := range queues {
		pipeline.Exists(ctx, asynqKey(queue, "pending"), asynqKey(queue, "active"), asynqKey(queue, "scheduled"), asynqKey(queue, "retry"))
	}
	answers, err := pipeline.Exec(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for tasks: %w", err)
	}
	has := make([]bool, len(queues))
	for i, answer := range answers {
		has[i] = answer.(*redis.IntCmd).Val() > 0
	}
	return has, nil
}

// KEYS: pending, paused, active, lease, scheduled, retry, and the leases of the job type, of which one is wanted. ARGV: now (s),
// now (ns), time (s) before which a lost task's lease ended, time (s) when a new lease ends, prefix of the tasks' keys, limit,
// token and TTL (ms) of the wanted lease. Returns {number of tasks that a worker can take, IDs of the rescued tasks, time (s) when
// the next task is due or "", IDs of the removed tasks, key of the taken lease or ""}.
var findWorkScript = redis.NewScript(isDamaged + `
local rescued, removed = {}, {}
local function put(command, id, ...)
	if damaged(ARGV[5] .. id, id) then
		redis.call("UNLINK", ARGV[5] .. id)
		table.insert(removed, id)
		return false
	end
	redis.call(command, KEYS[1], id)
	redis.call("HSET", ARGV[5] .. id, "state", "pending", ...)
	return true
end
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", ARGV[3], "LIMIT", 0, ARGV[6])) do
	redis.call("ZREM", KEYS[4], id)
	if redis.call("LREM", KEYS[3], 0, id) > 0 and put("RPUSH", id) then
		table.insert(rescued, id)
	end
end
if redis.call("LLEN", KEYS[3]) > redis.call("ZCARD", KEYS[4]) then -- asynq never finds an active task without a lease
	for _, id in ipairs(redis.call("LRANGE", KEYS[3], 0, -1)) do
		redis.call("ZADD", KEYS[4], "NX", ARGV[4], id)
	end
end
local next = ""
for i = 5, 6 do
	for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[i], "-inf", ARGV[1], "LIMIT", 0, ARGV[6])) do
		redis.call("ZREM", KEYS[i], id)
		put("LPUSH", id, "pending_since", ARGV[2])
	end
	local first = redis.call("ZRANGE", KEYS[i], 0, 0, "WITHSCORES")
	if first[2] and (next == "" or tonumber(first[2]) < tonumber(next)) then
		next = first[2]
	end
end
local pending = 0
if redis.call("EXISTS", KEYS[2]) == 0 then
	pending = redis.call("LLEN", KEYS[1])
end
local lease = ""
for i = 7, pending > 0 and #KEYS or 0 do
	if redis.call("SET", KEYS[i], ARGV[7], "NX", "PX", ARGV[8]) then
		lease = KEYS[i]
		break
	end
end
return {pending, rescued, next, removed, lease}
`)

// Work says what there is to do in a queue.
type Work struct {
	// Pending is true if a worker can take a task: the queue has one, and is not paused.
	Pending bool
	// Next is when the next retry or delayed task is due. It is zero if there is none.
	Next time.Time
	// Rescued are the IDs of the tasks that were put back because their worker is lost.
	Rescued []string
	// Lease is the lease of the job type that TakeWork took, or nil: there is no work, or other workers have all leases.
	Lease *Lease
}

// FindWork looks for work in a queue. First it puts the tasks that are due, and those whose worker is lost, among the pending
// ones, even in a paused queue. It removes a task that is damaged.
func (j *Jobs) FindWork(ctx context.Context, queue string) (Work, error) {
	work, _, err := j.findWork(ctx, queue, nil, "")
	return work, err
}

// TakeWork is FindWork in the queue of a job type's runs. If a worker can take one of them, TakeWork takes a lease of the job type
// with it.
func (j *Jobs) TakeWork(ctx context.Context, def tasks.Definition) (Work, error) {
	token, asked := rand.Text(), time.Now()
	work, key, err := j.findWork(ctx, def.Queue(), j.leases(def), token)
	if err == nil && key != "" {
		work.Lease = &Lease{def: def, jobs: j, key: key, token: token, until: asked.Add(LeaseTTL - leaseMargin)}
	}
	return work, err
}

// findWork runs the script. It also returns the key of the lease that it took, or "".
func (j *Jobs) findWork(ctx context.Context, queue string, leases []string, token string) (work Work, lease string, err error) {
	now := time.Now()
	keys := append([]string{
		asynqKey(queue, "pending"), asynqKey(queue, "paused"), asynqKey(queue, "active"),
		asynqKey(queue, "lease"), asynqKey(queue, "scheduled"), asynqKey(queue, "retry"),
	}, leases...)
	reply, err := findWorkScript.Run(ctx, j.rdb, keys, now.Unix(), now.UnixNano(), now.Add(-rescueGrace).Unix(),
		now.Add(taskLease).Unix(), asynqKey(queue, "t:"), findLimit, token, LeaseTTL.Milliseconds()).Slice()
	if err != nil {
		return Work{}, "", fmt.Errorf("looking for work in %s: %w", queue, err)
	}
	pending, _ := reply[0].(int64) // the script returns these types
	next, _ := reply[2].(string)
	lease, _ = reply[4].(string)
	work = Work{Pending: pending > 0, Rescued: texts(reply[1])}
	if seconds, err := strconv.ParseFloat(next, 64); err == nil {
		work.Next = time.Unix(int64(seconds), 0)
	}
	j.logRemoved(queue, texts(reply[3]))
	return work, lease, nil
}

// texts returns a list in a script's answer.
func texts(list any) []string {
	values, _ := list.([]any)
	var all []string
	for _, value := range values {
		if text, ok := value.(string); ok {
			all = append(all, text)
		}
	}
	return all
}
