// Package history keeps what has ended: runs, and the actions of people, in a collection of MongoDB beside the records. Redis is
// small and can be flushed, so there an entry only waits until a Mover has stored it.
//
// A document has what lists are filtered by, and the entry as JSON text twice: in short for lists, and whole. So a payload and a
// result stay as they were, to the last digit, and a server has little to decode when it looks through many documents.
//
// The package does not write entries. The scripts of package jobs do that, when a run ends or an action is done.
package history
