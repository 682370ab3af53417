// Package tasks is what the three deployables share about jobs: every job type's Definition in one Registry, the
// payloads and results of the synchronisations, the identity of a run, and the asynq task that carries it.
//
// It is not where jobs are enqueued, inspected or run: it holds no connection and does no I/O, so that another program
// can import it to enqueue the same tasks.
package tasks
