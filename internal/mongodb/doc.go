// Package mongodb keeps the records of a sync run: it puts one MongoDB collection behind the interface that package
// syncrun asks for, and it owns what that interface leaves to a store, the order of the records and their ranges, the
// filter for those that are due, and which errors may pass.
//
// It is not a data access layer: it knows a record's _id, lastSynced, updatedAt and name, and leaves every other field
// of a document as it found it, unless it is told to set it.
package mongodb
