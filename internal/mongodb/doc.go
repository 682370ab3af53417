// Package mongodb makes a MongoDB collection a syncrun.Store. It decides what that interface leaves to a store: the order of the
// records, and so the ranges, the filter for due records, and which errors can pass.
//
// It is not a data access layer. It knows a record's _id, its name and the two dates that a sync writes, which are lastSynced and
// updatedAt unless the configuration names others. It shows the work the fields that it asks for. It leaves every other field as
// it is, unless an update sets or removes it.
package mongodb
