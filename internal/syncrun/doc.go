// Package syncrun is the domain: how one run brings the records of a collection up to date. It knows which records a run
// selects, and batches, writers, ranges, checkpoints, progress and results.
//
// It knows neither asynq nor MongoDB nor HTTP. Records come from a Store. The caller stores the checkpoint, with a Save function,
// and the ranges, with a Ranges. A record's key has a meaning only for the store, which also has the order of the records and
// the filter for those that are due.
package syncrun
