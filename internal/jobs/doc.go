// Package jobs is jobs as the API and an operator see them, on asynq and Redis: enqueueing and coalescing, ticks,
// status, control, retention, the lease, the state of runs and their ranges, and which processes live.
//
// It touches asynq's data only through asynq's public API; what asynq has no place for is in keys of our own (keys.go).
// It knows nothing of HTTP, nor of what a run does.
package jobs
