// Package scheduler is the body of the scheduler: it registers the schedule of each job type with asynq's Scheduler and
// sees to it that a tick enqueues one run, however many schedulers there are, or none when a run of its kind still
// waits.
//
// It runs nothing itself.
package scheduler
