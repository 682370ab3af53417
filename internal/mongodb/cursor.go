package mongodb

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// cursor walks over the records of one query.
type cursor struct {
	store     *Store
	found     *mongo.Cursor
	reference time.Time
	resumed   bool // behind a key, and so behind MinKey
}

// Next returns the next record. Only when it has to ask the server is there a deadline: one for each fetch.
func (c *cursor) Next(ctx context.Context) (syncrun.Record, bool, error) {
	for {
		ok, err := c.advance(ctx)
		if !ok {
			return syncrun.Record{}, false, err
		}
		if record := c.record(); !c.resumed || key(record.Key).value().Type != bson.TypeMinKey {
			return record, true, nil
		}
	}
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

// record copies what is needed of the current document. Its State tells whether its stamp must be replaced, see update.
func (c *cursor) record() syncrun.Record {
	doc := c.found.Current
	k := newKey(doc.Lookup("_id"))
	name, _ := doc.Lookup(c.store.NameField).StringValueOK()
	return syncrun.Record{Key: k, ID: k, Name: name, State: outranks(doc.Lookup(lastSynced), c.reference)}
}

// Close frees the server's cursor if there is one left.
func (c *cursor) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.found.Close(ctx) // the server drops it by itself later
}
