// The names of the keys in Redis: ours, and asynq's keys that this package touches itself.

package jobs

import "strconv"

// keyPrefix begins our keys. All keys of one job type have the hash tag of its queue, as asynq's do. So on a cluster one node
// has them all, and one script can touch several.
const keyPrefix = "codex-jobs:"

// uniqueKey is a hash: ID, payload and time (ms) of the run that has the unique key, from before it is enqueued until it
// begins.
func uniqueKey(job, key string) string { return jobKey(job, "waiting") + ":" + key }

// tickKey is the time (ms) of the latest tick that was handled.
func tickKey(job string) string { return jobKey(job, "tick") }

// leaseKey is a lease of the job type. The first one has no number, as in releases that had only one.
func leaseKey(job string, number int) string {
	if number == 0 {
		return jobKey(job, "lease")
	}
	return jobKey(job, "lease") + ":" + strconv.Itoa(number)
}

// runKey is a hash: the state of a run that has begun and not ended, see run.go.
func runKey(job, id string) string { return jobKey(job, "run") + ":" + id }

// rangesKey is a hash: the ranges of a split run, see ranges.go. It ends with runKey.
func rangesKey(job, id string) string { return jobKey(job, "ranges") + ":" + id }

func jobKey(job, what string) string { return keyPrefix + "{" + job + "}:" + what }

// processesKey is a sorted set: the processes of a role, by the time (ms) of their last heartbeat.
func processesKey(role Role) string { return keyPrefix + string(role) + "s" }

// workChannel is the channel of announcements. A message is the name of a queue that has something to do.
const workChannel = keyPrefix + "work"

// asynqQueues is asynq's set of the queues that its Inspector shows. A process of asynq adds a queue only with the first task
// that it enqueues: so the set lacks a queue without tasks, and one that Redis has lost since.
const asynqQueues = "asynq:queues"

// historyPrefix begins the keys of the histories of asynq's Schedulers.
const historyPrefix = "asynq:scheduler_history:"

// asynqKey is a key of asynq's for a queue.
func asynqKey(queue, what string) string { return "asynq:{" + queue + "}:" + what }
