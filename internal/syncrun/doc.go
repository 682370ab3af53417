// Package syncrun is the domain: how one run brings the records of a collection up to date. It knows which records are
// selected and in which order, batches, writers, ranges, checkpoint, progress and result.
//
// It knows neither asynq nor MongoDB nor HTTP: records come from a Store, and where the run got to is kept by whoever
// gave it the Save function. A record's key is opaque to it; order and the filter for what is due are the store's.
package syncrun
