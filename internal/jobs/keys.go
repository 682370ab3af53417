// The names of the keys in Redis: ours, and asynq's keys that this package touches itself.

package jobs

import (
	"strconv"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// keyPrefix begins our keys. All keys of one job type have the hash tag of its queue, as asynq's do. So on a cluster one node
// has them all, and one script can touch several.
const keyPrefix = "codex-jobs:"

// keys names the keys of one deployment.
type keys struct{ namespace tasks.Namespace }

// unique is a hash: ID, payload and time (ms) of the run that has the unique key, from before it is enqueued until it begins.
func (k keys) unique(job, key string) string { return k.ofJob(job, "waiting") + ":" + key }

// due is a sorted set: the IDs of the delayed runs that will have the unique key, by the time (ms) when they are due, see
// delay.go.
func (k keys) due(job, key string) string { return k.ofJob(job, "due") + ":" + key }

// window is a hash: ID, payload and time (ms) of the run that a trigger had last, and whether it has begun, see enqueue.go.
func (k keys) window(job, key string) string { return k.ofJob(job, "window") + ":" + key }

// tick is the time (ms) of the latest tick that was handled.
func (k keys) tick(job string) string { return k.ofJob(job, "tick") }

// lease is a lease of the job type. The first one has no number, as in releases that had only one.
func (k keys) lease(job string, number int) string {
	if number == 0 {
		return k.ofJob(job, "lease")
	}
	return k.ofJob(job, "lease") + ":" + strconv.Itoa(number)
}

// run is a hash: the state of a run that has begun and not ended, see run.go.
func (k keys) run(id tasks.RunID) string { return k.runs(id.Job) + id.String() }

// runs is what the keys run of a job type begin with.
func (k keys) runs(job string) string { return k.ofJob(job, "run") + ":" }

// wait is JSON: what an active run of the job type waits for, see wait.go.
func (k keys) wait(job string) string { return k.ofJob(job, "wait") }

// ranges is a hash: the ranges of a split run, see ranges.go. It ends with the key run.
func (k keys) ranges(id tasks.RunID) string { return k.ofJob(id.Job, "ranges") + ":" + id.String() }

// task is the key of asynq's for the task of a run.
func (k keys) task(id tasks.RunID) string {
	return asynqKey(k.namespace.Queue(id.Job), "t:"+id.String())
}

// history is a list: the entries of the history that are not stored elsewhere yet, oldest first, see entry.go.
func (k keys) history(job string) string { return k.ofJob(job, "history") }

// dropped is how many entries were dropped because the list was full.
func (k keys) dropped(job string) string { return k.ofJob(job, "history-dropped") }

// entries is the keys of a job type that the scripts with enter need.
func (k keys) entries(job string) []string { return []string{k.history(job), k.dropped(job)} }

// repaired is there for about a minute after a process has repaired the queues of the job type, see maintain.go.
func (k keys) repaired(job string) string { return k.ofJob(job, "repaired") }

// writable is what CheckWrites writes, see writable.go.
func (k keys) writable(job string) string { return k.ofJob(job, "writable") }

// rate is a sorted set: the permits of the job type's rate limit, see rate.go.
func (k keys) rate(job string) string { return k.ofJob(job, "rate") }

// notifies is there while a worker notifies of the job type's events, and for a day after. It is the share of failed records from which
// on that is an event, or "". See notices.go.
func (k keys) notifies(job string) string { return k.ofJob(job, "notifies") }

// notices is a list: the notices that wait for a worker that notifies.
func (k keys) notices(job string) string { return k.ofJob(job, "notices") }

// failing is there while the last run that ended has failed.
func (k keys) failing(job string) string { return k.ofJob(job, "failing") }

// schedule is a hash: the spec of the schedule that a scheduler wrote down last, and since when (ms) it is this one, see missed.go.
func (k keys) schedule(job string) string { return k.ofJob(job, "schedule") }

// missed is the last tick (ms) that was handled before the outage of which there was a notice.
func (k keys) missed(job string) string { return k.ofJob(job, "missed") }

func (k keys) ofJob(job, what string) string {
	return keyPrefix + "{" + k.namespace.Queue(job) + "}:" + what
}

// processes is a sorted set: the processes of a role, by the time (ms) of their last heartbeat.
func (k keys) processes(role Role) string { return k.ofAll(string(role) + "s") }

// process is JSON: what a live process says of itself. It ends with the process.
func (k keys) process(role Role, id string) string { return k.ofAll(string(role)) + ":" + id }

// work is the channel of announcements. A message is the name of a queue that has something to do.
func (k keys) work() string { return k.ofAll("work") }

// ofAll is a key, or a channel, that is not one job type's.
func (k keys) ofAll(what string) string { return keyPrefix + k.namespace.Queue(what) }

// asynqQueues is asynq's set of the queues that its Inspector shows. A process of asynq adds a queue only with the first task
// that it enqueues: so the set lacks a queue without tasks, and one that Redis has lost since.
const asynqQueues = "asynq:queues"

// asynqSchedulers is asynq's sorted set of the keys with the entries of its Schedulers, by the time (s) until which they live.
const asynqSchedulers = "asynq:schedulers"

// historyPrefix begins the keys of the histories of asynq's Schedulers.
const historyPrefix = "asynq:scheduler_history:"

// asynqKey is a key of asynq's for a queue.
func asynqKey(queue, what string) string { return "asynq:{" + queue + "}:" + what }
