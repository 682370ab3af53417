// Package scheduler is the body of the scheduler: it sees to it that each tick of each job type enqueues one run, however
// many schedulers there are, or none when a run of the same kind still waits. A timer loop for each schedule does that, on
// time and after an outage alike; asynq's Scheduler only shows the schedules to people.
//
// It runs no job itself.
package scheduler
