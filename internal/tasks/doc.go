// Package tasks is what the three programs share about jobs: the Definition of every job type in one Registry, schedules, the
// payloads and results of the syncs, the ID of a run, and the asynq task that carries it.
//
// It enqueues, inspects and runs nothing: it holds no connection and does no I/O. So another program can import it to make
// the same tasks.
package tasks
