// The collection of the entries: what is written to it.

package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	// commandTimeout bounds each command. A caller's context can end before.
	commandTimeout = 10 * time.Second
	// tendTimeout bounds a command that looks at all entries, or makes an index.
	tendTimeout = 2 * time.Minute
	// rekept is how many entries Rekeep reads at a time.
	rekept = 1000
)

// Options are what a Store is made of.
type Options struct {
	// Client is the connection to MongoDB. It need not have been used before.
	Client *mongodb.Client
	// Database and Collection are where the entries are.
	Database, Collection string
	// Keep is how long an entry is kept after its time.
	Keep time.Duration
	// BulkSize is how many updates one command has at most. The default is mongodb.DefaultBulkSize.
	BulkSize int
}

// Store is the collection of the entries. It is safe for concurrent use, also by several processes. Its methods return an error
// that wraps syncrun.ErrUnavailable if MongoDB does not serve just now, and a RightError if the user lacks a right.
type Store struct{ Options }

// NewStore returns the store.
func NewStore(o Options) *Store {
	if o.BulkSize <= 0 {
		o.BulkSize = mongodb.DefaultBulkSize
	}
	return &Store{o}
}

// Name returns the names of the database and the collection.
func (s *Store) Name() string { return s.Database + "." + s.Collection }

// RightError says that the user of MongoDB lacks a right.
type RightError struct {
	// Action is the privilege action of MongoDB that the user lacks, such as "insert".
	Action string
	err    error
}

func (e *RightError) Error() string { return e.err.Error() }

func (e *RightError) Unwrap() error { return e.err }

// fail adds to the driver's error what was being done, and with which right.
func (s *Store) fail(ctx context.Context, doing, action string, err error) error {
	lacks := mongodb.LacksRight(err)
	err = mongodb.Classify(ctx, doing+" "+s.Name(), err)
	if lacks {
		return &RightError{action, err}
	}
	return err
}

// begin returns the collection, and a context that bounds a command.
func (s *Store) begin(ctx context.Context, timeout time.Duration) (*mongo.Collection, context.Context, context.CancelFunc, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	collection, err := s.Client.Collection(bounded, s.Database, s.Collection)
	if err != nil {
		cancel()
		return nil, nil, nil, fmt.Errorf("connecting for %s: %w", s.Name(), err)
	}
	return collection, bounded, cancel, nil
}

// Lost is an entry that MongoDB will never take.
type Lost struct {
	ID  string
	Err error
}

// Put stores entries. One that is stored already stays; one of the same ID with a later time takes its place. So entries can be
// put again and in any order. If MongoDB takes one not for what it is, its details are left out. If MongoDB does not take it even so,
// it is returned as lost, and the others are stored all the same. After an error Put has stored some or none.
func (s *Store) Put(ctx context.Context, entries []jobs.Entry) (lost []Lost, err error) {
	latest := make(map[string]int, len(entries)) // of each ID, where it is in docs
	var docs []document
	for _, e := range entries {
		d, err := newDocument(e, s.Keep)
		if err != nil {
			lost = append(lost, Lost{e.ID, err})
			continue
		}
		switch i, known := latest[d.ID]; {
		case !known:
			latest[d.ID] = len(docs)
			docs = append(docs, d)
		case docs[i].At.Before(d.At):
			docs[i] = d
		}
	}
	if len(docs) == 0 {
		return lost, nil
	}
	collection, bounded, cancel, err := s.begin(ctx, commandTimeout)
	if err != nil {
		return nil, err
	}
	defer cancel()
	const storing = "storing entries in"
	// Nearly all are new. A conditional upsert of each would be slower, and must deal with conflicts, too.
	_, err = collection.InsertMany(bounded, docs, options.InsertMany().SetOrdered(false))
	var bulk mongo.BulkWriteException
	if err != nil && (!errors.As(err, &bulk) || bulk.WriteConcernError != nil || len(bulk.WriteErrors) == 0) {
		return nil, s.fail(ctx, storing, "insert", err)
	}
	for _, refused := range bulk.WriteErrors {
		d := docs[refused.Index]
		if mongo.IsDuplicateKeyError(refused) {
			err = s.replace(bounded, collection, d)
		} else {
			if classified := s.fail(ctx, storing, "insert", mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{refused}}); passes(classified) {
				return nil, classified
			}
			if _, err = collection.InsertOne(bounded, d.reduced()); mongo.IsDuplicateKeyError(err) {
				continue
			}
		}
		if err == nil {
			continue
		}
		if classified := s.fail(ctx, storing, "update", err); passes(classified) {
			return nil, classified
		}
		lost = append(lost, Lost{d.ID, err})
	}
	return lost, nil
}

// refusingCodes are the server's codes for a write that is refused whatever is written, until a person does something.
var refusingCodes = []int{
	371,   // UserWritesBlocked, while a cluster is migrated
	8000,  // AtlasError: a small cluster is over its quota
	14031, // OutOfDiskSpace
}

// passes reports whether the same may be taken later.
func passes(err error) bool {
	var right *RightError
	var server mongo.ServerError
	if errors.As(err, &server) && slices.ContainsFunc(refusingCodes, server.HasErrorCode) {
		return true
	}
	return errors.Is(err, syncrun.ErrUnavailable) || errors.As(err, &right) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// replace stores a document in the place of an older one.
func (s *Store) replace(ctx context.Context, collection *mongo.Collection, d document) error {
	var stored struct{ At time.Time }
	byID := bson.D{{Key: fieldID, Value: d.ID}}
	err := collection.FindOne(ctx, byID, options.FindOne().SetProjection(bson.D{{Key: fieldAt, Value: 1}})).Decode(&stored)
	switch {
	case errors.Is(err, mongo.ErrNoDocuments): // it has just expired, or a secondary that was asked lags behind
		if _, err = collection.InsertOne(ctx, d); !mongo.IsDuplicateKeyError(err) {
			return err
		}
	case err != nil || !stored.At.Before(d.At):
		return err
	}
	older := bson.D{byID[0], {Key: fieldAt, Value: bson.D{{Key: "$lt", Value: d.At}}}} // still, as another worker may be faster
	_, err = collection.ReplaceOne(ctx, older, d)
	return err
}

// newest is the order of lists.
var newest = bson.D{{Key: fieldAt, Value: -1}, {Key: fieldID, Value: -1}}

// indexes returns the indexes for List. Most begin with the field of a filter, and go on in the order of the list. The index on the
// words finds entries with a rare word. For a frequent word the server reads in the order of the list, which fills a page sooner.
func indexes() []mongo.IndexModel {
	models := []mongo.IndexModel{{Keys: newest}, {Keys: bson.D{{Key: fieldWords, Value: 1}}}}
	for _, field := range []string{fieldJob, fieldWhat} {
		models = append(models, mongo.IndexModel{Keys: slices.Concat(bson.D{{Key: field, Value: 1}}, newest)})
	}
	return models
}

// expiry is the index by which the server itself deletes what has expired.
var expiry = mongo.IndexModel{Keys: bson.D{{Key: fieldExpires, Value: 1}}, Options: options.Index().SetExpireAfterSeconds(0)}

// EnsureIndexes makes the indexes that are missing, and the collection with the first one.
func (s *Store) EnsureIndexes(ctx context.Context) error { return s.ensure(ctx, indexes()...) }

// EnsureExpiry makes the index by which the server deletes entries that have expired. Not every server has such indexes.
func (s *Store) EnsureExpiry(ctx context.Context) error { return s.ensure(ctx, expiry) }

func (s *Store) ensure(ctx context.Context, models ...mongo.IndexModel) error {
	collection, bounded, cancel, err := s.begin(ctx, tendTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	there, err := collection.Indexes().ListSpecifications(bounded)
	if err != nil && !mongodb.LacksRight(err) {
		return s.fail(ctx, "listing the indexes of", "listIndexes", err)
	}
	for _, m := range models {
		keys, _ := bson.Marshal(m.Keys) // which are constants
		// An index that a person made by hand can have the keys of expiry, and yet expire nothing: making ours fails then.
		expires := m.Options != nil
		if slices.ContainsFunc(there, func(i mongo.IndexSpecification) bool {
			return sameKeys(i.KeysDocument, keys) && (!expires || i.ExpireAfterSeconds != nil)
		}) {
			continue
		}
		if _, err := collection.Indexes().CreateOne(bounded, m); err != nil {
			return s.fail(ctx, "making an index of", "createIndex", err)
		}
	}
	return nil
}

// sameKeys reports whether two indexes have the same fields in the same directions, whatever kinds of numbers say so.
func sameKeys(a, b bson.Raw) bool {
	inA, _ := a.Elements()
	inB, _ := b.Elements()
	return slices.EqualFunc(inA, inB, func(a, b bson.RawElement) bool {
		inA, okA := a.Value().AsInt64OK()
		inB, okB := b.Value().AsInt64OK()
		return a.Key() == b.Key() && okA && okB && inA == inB
	})
}

// Expire deletes the entries that have expired by now, and returns how many.
func (s *Store) Expire(ctx context.Context, now time.Time) (int64, error) {
	collection, bounded, cancel, err := s.begin(ctx, tendTimeout)
	if err != nil {
		return 0, err
	}
	defer cancel()
	result, err := collection.DeleteMany(bounded, bson.D{{Key: fieldExpires, Value: bson.D{{Key: "$lte", Value: now}}}})
	if err != nil {
		return 0, s.fail(ctx, "deleting expired entries of", "remove", err)
	}
	return result.DeletedCount, nil
}

// Rekeep makes entries that were stored with another Keep expire by the present one, and returns how many those were. It goes through
// the collection once: a worker with another Keep can do the same at once, and they would change the same entries in turn for ever.
func (s *Store) Rekeep(ctx context.Context) (changed int, err error) {
	for after := ""; ; {
		n, last, err := s.rekeepSome(ctx, after)
		changed += n
		if err != nil || n == 0 {
			return changed, err
		}
		after = last
	}
}

// rekeepSome does so for the first ones whose IDs come after the given one. It returns the last ID.
func (s *Store) rekeepSome(ctx context.Context, after string) (int, string, error) {
	const changing = "changing when entries expire in"
	collection, bounded, cancel, err := s.begin(ctx, tendTimeout)
	if err != nil {
		return 0, "", err
	}
	defer cancel()
	keep := int64(s.Keep / time.Second)
	others := bson.D{
		{Key: fieldID, Value: bson.D{{Key: "$gt", Value: after}}}, {Key: fieldKeep, Value: bson.D{{Key: "$ne", Value: keep}}},
	}
	opts := options.Find().SetProjection(bson.D{{Key: fieldAt, Value: 1}}).SetSort(bson.D{{Key: fieldID, Value: 1}}).SetLimit(rekept)
	found, err := collection.Find(bounded, others, opts)
	var docs []struct {
		ID string    `bson:"_id"`
		At time.Time `bson:"at"`
	}
	if err == nil {
		err = found.All(bounded, &docs)
	}
	if err != nil {
		return 0, "", s.fail(ctx, changing, "find", err)
	}
	for some := range slices.Chunk(docs, s.BulkSize) {
		var models []mongo.WriteModel
		for _, d := range some {
			models = append(models, mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: fieldID, Value: d.ID}}).SetUpdate(bson.D{{Key: "$set", Value: bson.D{
				{Key: fieldExpires, Value: d.At.Add(s.Keep)}, {Key: fieldKeep, Value: keep},
			}}}))
		}
		if _, err := collection.BulkWrite(bounded, models, options.BulkWrite().SetOrdered(false)); err != nil {
			return 0, "", s.fail(ctx, changing, "update", err)
		}
	}
	if len(docs) == 0 {
		return 0, "", nil
	}
	return len(docs), docs[len(docs)-1].ID, nil
}
