// Package scheduler enqueues the run of each tick, once, with any number of schedulers. If a run with the same unique key waits,
// that run serves the tick. One timer loop for each schedule calls jobs.EnqueueTick, on time and after an outage alike. asynq's
// Scheduler only shows the schedules to people. The package runs no job.
package scheduler
