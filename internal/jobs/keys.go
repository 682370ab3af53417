package jobs

// Keys of our own. Those of one job type carry its queue's hash tag, as asynq's do, so that on a cluster they sit in
// the queue's slot and one script may touch several.
const keyPrefix = "codex-jobs:"

// waitingKey is a hash: the id, payload and time (ms) of the run of the kind that was enqueued last and has not begun.
func waitingKey(job, kind string) string {
	return jobKey(job, "waiting") + ":" + kind
}

// tickKey is the slot (ms) of the latest tick that was dealt with.
func tickKey(job string) string { return jobKey(job, "tick") }

// leaseKey is held by the worker that may work on the job type's queue.
func leaseKey(job string) string { return jobKey(job, "lease") }

// runKey is a hash: owner, checkpoint and progress of a run that has begun and not ended.
func runKey(job, id string) string { return jobKey(job, "run") + ":" + id }

// rangesKey is a hash: the ranges of a run that is cut, see ranges.go. It ends with runKey.
func rangesKey(job, id string) string { return jobKey(job, "ranges") + ":" + id }

func jobKey(job, what string) string { return keyPrefix + "{" + job + "}:" + what }

// processesKey is a sorted set of the live processes of a role by when they were last seen (ms).
func processesKey(role Role) string { return keyPrefix + string(role) + "s" }

// leaseChannel is where a released lease is announced, by its job type's name.
const leaseChannel = keyPrefix + "lease"
