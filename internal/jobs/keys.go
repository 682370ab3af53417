package jobs

import "strconv"

// Keys of our own. Those of one job type carry its queue's hash tag, as asynq's do, so that on a cluster they sit in
// the queue's slot and one script may touch several.
const keyPrefix = "codex-jobs:"

// waitingKey is a hash: the id, payload and time (ms) of the run of the kind that was enqueued last and has not begun.
func waitingKey(job, kind string) string {
	return jobKey(job, "waiting") + ":" + kind
}

// tickKey is the slot (ms) of the latest tick that was dealt with.
func tickKey(job string) string { return jobKey(job, "tick") }

// leaseKey is held by a worker that may work on the job type's queue; where several may, each has a number.
func leaseKey(job string, number int) string {
	if number == 0 {
		return jobKey(job, "lease")
	}
	return jobKey(job, "lease") + ":" + strconv.Itoa(number)
}

// runKey is a hash: owner, checkpoint and progress of a run that has begun and not ended.
func runKey(job, id string) string { return jobKey(job, "run") + ":" + id }

// rangesKey is a hash: the ranges of a run that is split, see ranges.go. It ends with runKey.
func rangesKey(job, id string) string { return jobKey(job, "ranges") + ":" + id }

func jobKey(job, what string) string { return keyPrefix + "{" + job + "}:" + what }

// processesKey is a sorted set of the live processes of a role by when they were last seen (ms).
func processesKey(role Role) string { return keyPrefix + string(role) + "s" }

// workChannel is where a queue that has got something to do is announced, by its name.
const workChannel = keyPrefix + "work"
