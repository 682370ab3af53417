// Reading the records of one query, in batches.

package mongodb

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// cursor walks over the records of one query.
type cursor struct {
	store     *Store
	found     *mongo.Cursor
	reference time.Time // the run's
	latest    time.Time // the latest stamp that is believed
	resumed   bool      // the query begins behind a key, and so behind MinKey
	named     bool      // records are read with their names
}

// Read implements syncrun.Cursor. Each fetch from the server has a deadline.
func (c *cursor) Read(ctx context.Context, records []syncrun.Record) (n int, err error) {
	keys := newKeySlab(len(records))
	for n < len(records) {
		ok, err := c.advance(ctx)
		if !ok {
			return n, err
		}
		id := c.found.Current.Lookup("_id")
		if c.resumed && id.Type == bson.TypeMinKey {
			continue
		}
		records[n] = c.record(keys.add(id))
		n++
	}
	return n, nil
}

func (c *cursor) advance(ctx context.Context) (bool, error) {
	bounded := ctx
	if c.found.RemainingBatchLength() == 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, c.store.ReadTimeout)
		defer cancel()
	}
	if c.found.Next(bounded) {
		return true, nil
	}
	if err := c.found.Err(); err != nil {
		return false, c.store.fail(ctx, "reading records of", err)
	}
	return false, nil
}

// record copies what a run needs of the current document, which is part of the buffer of a whole batch. State is true if the
// stamp must be replaced, see stamps.append.
func (c *cursor) record(k *key) syncrun.Record {
	doc := c.found.Current
	stamp := doc.Lookup(c.store.SyncedField)
	r := syncrun.Record{Key: *k, ID: k, State: outranks(stamp, c.latest)}
	at, isDate := stamp.DateTimeOK()
	r.Stamped = isDate && at == int64(date(c.reference))
	if c.named || c.store.Fields != nil {
		r.Name = c.store.name(doc)
	}
	if c.store.Fields != nil {
		r.Data = slices.Clone(doc)
	}
	return r
}

// Close implements syncrun.Cursor. It frees the server's cursor, if there still is one.
func (c *cursor) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.found.Close(ctx) // if it fails, the server drops the cursor later
}
