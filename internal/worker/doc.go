// Package worker runs jobs, whatever they do. From the outside in it consists of:
//
//   - Worker (worker.go), which hears of work: it listens to announcements, and looks once a second. It also bounds how many
//     handlers run at once.
//   - consumer (consumer.go), one for each queue: the runs of a job type, or their ranges (unit.go has what differs). While
//     there is work it takes a lease of the job type and runs a session.
//   - session (session.go), the life of one asynq Server. It makes an attempt of each task, renews the lease, and stops the
//     attempts when it must end.
//   - attempt (attempt.go), one try at a run or at a range. It becomes the owner of the state in Redis, calls the handler, and
//     records how the handler ended.
//   - Handler and Attempt (handler.go), what a job type brings, and what that sees. A handler can split its run (ranges.go).
//
// The package knows no job type, and nothing of what a handler does: New is given the handlers.
package worker
