// Package jobs is jobs as the API and an operator see them, on asynq and Redis: enqueueing and coalescing, ticks,
// status, control, retention, the lease, the state of runs and their ranges, and which processes live.
//
// What asynq has no place for is in keys of our own (keys.go). asynq's data is read and changed through its public API,
// except for what that API cannot do:
//
//   - Register adds the queues to the set asynq:queues, as asynq does when it enqueues a task.
//   - HasTasks and FindWork (work.go) read the lists of a queue's tasks, and put tasks that are due, or whose worker is
//     lost, among the pending ones, as asynq's forwarder and recoverer do within a Server.
//   - RemoveDeadHistories deletes asynq:scheduler_history:* of Schedulers that were killed.
//
// The package knows nothing of HTTP, nor of what a run does.
package jobs
