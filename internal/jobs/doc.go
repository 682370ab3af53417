// Package jobs holds all that the product keeps and asks in Redis: enqueueing, ticks, status, control, retention, leases, the
// state of runs and ranges, and which processes live. It builds on asynq, and adds keys of its own for what asynq has no place
// for. It knows nothing of HTTP, nor of what a run does.
//
// The package reads and changes asynq's data through asynq's public API, except where that API cannot do it (keys.go has the
// names of asynq's keys):
//
//   - Register and announce add queues to the set asynq:queues, as asynq does when it enqueues a task.
//   - HasTasks, Status, List and the metrics look at a queue's lists, and others at its paused key or a task's state. asynq's own
//     answers cost many times more commands, and fail for a queue with one damaged task. Pause and Resume set the paused key.
//   - Schedules reads what asynq's Schedulers show. asynq's own answer also writes.
//   - The script that takes a unique key reads the state of the task that has it. EnqueueTick removes an ended task with the ID of
//     its own.
//   - FindWork puts tasks that are due, or whose worker is lost, among the pending ones, as asynq's forwarder and recoverer do
//     within a Server. It also gives a lease to an active task that has none. Maintain removes tasks that are damaged.
//   - RunState.Complete writes the result of a run into its task, in the same script that compares the owner. The record of a run
//     is in fields of its task that begin with codex.
//   - RemoveDeadHistories deletes the keys asynq:scheduler_history:* of Schedulers that were killed.
package jobs
