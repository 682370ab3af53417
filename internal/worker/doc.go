// Package worker is the body of the worker: it takes part in the contest for each job type's lease, runs an asynq
// Server for the queues whose lease it holds, and gives each run to the Processor of its job type. Beside that it works
// on the ranges of runs that have been cut, its own and other workers'.
//
// What a processor does is not its business, except for the synchronisations (sync.go), which hand over to package
// syncrun. Adding a job type is a Definition in package tasks and a Processor here.
package worker
