package mongodb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	// DefaultBulkSize caps the updates of one command: enough to make the round trip cheap, few enough that a command
	// ends well within its deadline on a busy server.
	DefaultBulkSize = 1000
	// DefaultReadTimeout bounds each read. A server answers a read with the first records that it finds, so one that has
	// to walk over tens of millions of records that are not due takes a while. A server that is gone is noticed by the
	// client's monitor, long before.
	DefaultReadTimeout = 2 * time.Minute
	// DefaultWriteTimeout bounds each command that updates records.
	DefaultWriteTimeout = 30 * time.Second

	// fetchSize is how many records the server sends at a time.
	fetchSize = 1000
)

// Config says which records a Store keeps and how it talks to the server. Zero values mean the defaults.
type Config struct {
	// Collection is the collection's name.
	Collection string
	// NameField is the field that holds what people call a record: "username", "name", "title". "" means there is none.
	NameField string
	// BulkSize caps how many updates one command carries.
	BulkSize int
	// ReadTimeout bounds each count and each fetch of a cursor, WriteTimeout each command that updates records.
	ReadTimeout, WriteTimeout time.Duration
}

// Store is a collection of records, as package syncrun wants it.
type Store struct {
	Config
	collection *mongo.Collection
	namespace  string
}

var _ syncrun.Store = (*Store)(nil)

// NewStore returns the store for a collection of db.
func NewStore(db *mongo.Database, cfg Config) *Store {
	if cfg.BulkSize <= 0 {
		cfg.BulkSize = DefaultBulkSize
	}
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = DefaultReadTimeout
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	return &Store{Config: cfg, collection: db.Collection(cfg.Collection), namespace: db.Name() + "." + cfg.Collection}
}

// Count returns the number of selected records.
func (s *Store) Count(ctx context.Context, sel syncrun.Selection) (int64, error) {
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	n, err := s.collection.CountDocuments(bounded, selected(sel))
	if err != nil {
		return 0, s.fail(ctx, "counting records of", err)
	}
	return n, nil
}

// Scan returns a cursor over the selected records behind the given key, in the order of their _ids.
func (s *Store) Scan(ctx context.Context, sel syncrun.Selection, after []byte) (syncrun.Cursor, error) {
	filter := selected(sel)
	if after != nil {
		k, ok := parseKey(after)
		if !ok {
			return nil, fmt.Errorf("reading records of %s: %x is not the key of a record", s.namespace, after)
		}
		filter = bson.D{{Key: "$and", Value: append(k.after(), filter)}}
	}
	byID := bson.D{{Key: "_id", Value: 1}}
	fields := bson.D{{Key: lastSynced, Value: 1}}
	if s.NameField != "" {
		fields = append(fields, bson.E{Key: s.NameField, Value: 1})
	}
	opts := options.Find().
		SetSort(byID).
		// An index on lastSynced must not tempt the server into sorting millions of records in memory.
		SetHint(byID).
		SetProjection(fields).
		SetBatchSize(fetchSize)
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	found, err := s.collection.Find(bounded, filter, opts)
	if err != nil {
		return nil, s.fail(ctx, "reading records of", err)
	}
	return &cursor{store: s, found: found, reference: sel.Reference, resumed: after != nil}, nil
}

// Stamp updates the records, in commands of at most BulkSize updates.
func (s *Store) Stamp(ctx context.Context, records []syncrun.Record, reference time.Time) (syncrun.Stamped, error) {
	now := bson.E{Key: "$currentDate", Value: bson.D{{Key: updatedAt, Value: true}}}
	raise, err := bson.Marshal(bson.D{{Key: "$max", Value: stamp(date(reference))}, now})
	if err != nil {
		return syncrun.Stamped{}, fmt.Errorf("updating records of %s: %w", s.namespace, err)
	}
	replace, err := bson.Marshal(bson.D{{Key: "$set", Value: stamp(date(reference))}, now})
	if err != nil {
		return syncrun.Stamped{}, fmt.Errorf("updating records of %s: %w", s.namespace, err)
	}
	var stamped syncrun.Stamped
	models := make([]mongo.WriteModel, 0, min(len(records), s.BulkSize))
	for chunk := range slices.Chunk(records, s.BulkSize) {
		models = models[:0]
		for _, record := range chunk {
			models = append(models, update(record, reference, bson.Raw(raise), bson.Raw(replace)))
		}
		matched, failed, err := s.write(ctx, models)
		if err != nil {
			return syncrun.Stamped{}, err
		}
		stamped.Matched += matched
		for _, f := range failed {
			stamped.Failed = append(stamped.Failed, syncrun.Failure{Record: chunk[f.Index], Err: f})
		}
	}
	return stamped, nil
}

// update returns the update of one record. $max keeps a writer that was held up from setting back what a later run has
// done, whatever the order in which they get here. Where $max would keep a value that is no valid stamp, that value is
// replaced, unless the record has a valid stamp by now.
func update(record syncrun.Record, reference time.Time, raise, replace bson.Raw) mongo.WriteModel {
	v := key(record.Key).value()
	filter := bson.D{{Key: "_id", Value: v}}
	if v.Type == bson.TypeEmbeddedDocument { // may begin with "$ref", which is no operator
		filter = id("$eq", v)
	}
	if replaced, _ := record.State.(bool); replaced {
		return mongo.NewUpdateOneModel().SetFilter(append(filter, noValidStamp(reference))).SetUpdate(replace)
	}
	return mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(raise)
}

// write sends one bulk of updates and returns how many records they applied to, and which of them failed.
func (s *Store) write(ctx context.Context, models []mongo.WriteModel) (int64, []mongo.BulkWriteError, error) {
	bounded, cancel := context.WithTimeout(ctx, s.WriteTimeout)
	defer cancel()
	result, err := s.collection.BulkWrite(bounded, models, options.BulkWrite().SetOrdered(false))
	var bulk mongo.BulkWriteException
	switch {
	case err == nil:
		return result.MatchedCount, nil, nil
	case errors.As(err, &bulk) && len(bulk.WriteErrors) > 0 && !mayPass(err) && ctx.Err() == nil:
		return result.MatchedCount, bulk.WriteErrors, nil
	default:
		return 0, nil, s.fail(ctx, "updating records of", err)
	}
}

func (s *Store) fail(ctx context.Context, doing string, err error) error {
	return classify(ctx, doing+" "+s.namespace, err)
}
