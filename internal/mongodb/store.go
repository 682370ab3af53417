// The store: the commands that read and update the records of a collection.

package mongodb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	// existsTimeout bounds the look for the collection.
	existsTimeout = 5 * time.Second
	// fetchSize is how many records the server sends at a time.
	fetchSize = 1000
)

// Store is a MongoDB collection as a syncrun.Store.
type Store struct {
	Config
	collection *mongo.Collection
	writes     bson.Raw // the write concern
	namespace  string
	namePath   []string // of NameField, if there is one
	indexed    *atomic.Bool
	only       bson.A // nil, or the _ids of the only records that it has, see Few
}

var (
	_ syncrun.Store  = (*Store)(nil)
	_ syncrun.Finder = (*Store)(nil)
)

// NewStore returns the store of a collection in the database. The configuration must be valid, and the client's Ping must have
// succeeded once before.
func NewStore(client *Client, database string, cfg Config) *Store {
	cfg = cfg.withDefaults()
	s := &Store{
		Config: cfg, writes: client.writes,
		collection: client.Database(database).Collection(cfg.Collection), namespace: database + "." + cfg.Collection,
		indexed: new(atomic.Bool),
	}
	if cfg.NameField != "" {
		s.namePath = strings.Split(cfg.NameField, ".")
	}
	return s
}

// Exists reports whether the collection is there. MongoDB makes a collection with its first document, so a name that is wrong
// is an empty collection, and no error.
func (s *Store) Exists(ctx context.Context) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, existsTimeout)
	defer cancel()
	// A user who may not list all collections still sees those that they may use.
	opts := options.ListCollections().SetNameOnly(true).SetAuthorizedCollections(true)
	names, err := s.collection.Database().ListCollectionNames(bounded, bson.D{{Key: "name", Value: s.Collection}}, opts)
	if err != nil {
		return false, s.fail(ctx, "looking for", err)
	}
	return len(names) > 0, nil
}

// Name returns the names of the database and the collection.
func (s *Store) Name() string { return s.namespace }

// byID is the order of the records, and the index that has it.
var byID = bson.D{{Key: "_id", Value: 1}}

// EndOfRange implements syncrun.Store. The server only walks over the index on _id, and sends at most two _ids. At the end of a
// bracket, unless it is the last one, it must look once more, and at the records themselves. A small collection it does not walk over at all.
func (s *Store) EndOfRange(ctx context.Context, after []byte, size int) ([]byte, error) {
	if after == nil {
		n, err := s.size(ctx)
		if err != nil {
			return nil, s.fail(ctx, "splitting records of", err)
		}
		if n <= int64(size) {
			return nil, nil
		}
	}
	find := func(filter bson.D, skip int) ([]key, error) { return s.keys(ctx, filter, 1, skip, 2) }
	upto, err := endOfRange(after, size, find, func(last bool) (key, error) { return s.edge(ctx, last) })
	if err != nil {
		return nil, s.fail(ctx, "splitting records of", err)
	}
	return upto, nil
}

// size returns about how many records there are, selected or not, without a look at them: the server knows it.
func (s *Store) size(ctx context.Context) (int64, error) {
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	return s.collection.EstimatedDocumentCount(bounded)
}

// within returns the conditions of a range as condition makes them, which is conditions or exactly.
func (s *Store) within(ctx context.Context, r syncrun.Range, condition func(r syncrun.Range, alike bool) (bson.A, error)) (bson.A, error) {
	alike, err := alike(r, func(last bool) (key, error) { return s.edge(ctx, last) })
	if err != nil {
		return nil, err
	}
	return condition(r, alike)
}

// edge returns the first or the last _id, or nil if there is none.
func (s *Store) edge(ctx context.Context, last bool) (key, error) {
	direction := 1
	if last {
		direction = -1
	}
	found, err := s.keys(ctx, bson.D{}, direction, 0, 1)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// keys returns the first _ids that filter selects after skipping some, in the direction of 1 or -1.
func (s *Store) keys(ctx context.Context, filter bson.D, direction, skip, limit int) ([]key, error) {
	opts := options.Find().SetSort(bson.D{{Key: "_id", Value: direction}}).SetHint(byID).SetProjection(byID).
		SetSkip(int64(skip)).SetLimit(int64(limit)).SetBatchSize(int32(limit))
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	found, err := s.collection.Find(bounded, filter, opts)
	if err != nil {
		return nil, err
	}
	var docs []bson.Raw
	if err := found.All(bounded, &docs); err != nil {
		return nil, err
	}
	keys := make([]key, len(docs))
	for i, doc := range docs {
		keys[i] = newKey(doc.Lookup("_id"))
	}
	return keys, nil
}

// Count implements syncrun.Store. For all records it asks the server how many it thinks it has. Of few records that Few has found
// it knows it.
func (s *Store) Count(ctx context.Context, sel syncrun.Selection, within syncrun.Range) (int64, error) {
	const counting = "counting records of"
	in, err := s.within(ctx, within, exactly)
	if err != nil {
		return 0, s.fail(ctx, counting, err)
	}
	if s.only != nil && in == nil && len(s.Filter) == 0 {
		return int64(len(s.only)), nil
	}
	opts := options.Count()
	if len(in) > 0 || s.only != nil {
		// With an index on the stamp, or for the filter, the server would walk over the records of all other ranges.
		opts.SetHint(byID)
	}
	var n int64
	if filter := s.filter(sel, in); len(filter) > 0 {
		bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
		defer cancel()
		n, err = s.collection.CountDocuments(bounded, filter, opts)
	} else {
		n, err = s.size(ctx)
	}
	if err != nil {
		return 0, s.fail(ctx, counting, err)
	}
	return n, nil
}

// Scan implements syncrun.Store. The cursor walks in the order of the _ids.
func (s *Store) Scan(ctx context.Context, sel syncrun.Selection, within syncrun.Range) (syncrun.Cursor, error) {
	const reading = "reading records of"
	in, err := s.within(ctx, within, conditions)
	if err != nil {
		return nil, s.fail(ctx, reading, err)
	}
	opts := options.Find().
		SetSort(byID).
		// With an index on the stamp, or for the filter, the server would sort millions of records in memory.
		SetHint(byID).
		SetProjection(s.projection(sel.Named)).
		SetBatchSize(fetchSize)
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	found, err := s.collection.Find(bounded, s.filter(sel, in), opts)
	if err != nil {
		return nil, s.fail(ctx, reading, err)
	}
	return &cursor{store: s, found: found, reference: sel.Reference, latest: sel.Latest(), resumed: within.After != nil, named: sel.Named}, nil
}

// filter returns the filter for the selected records that take part, and whose _ids match the conditions.
func (s *Store) filter(sel syncrun.Selection, in bson.A) bson.D {
	selected := stampField(s.SyncedField).selected(sel)
	if s.only != nil {
		in = append(in, id("$in", s.only))
	}
	if len(s.Filter) > 0 {
		in = append(in, s.Filter)
	}
	if len(in) == 0 {
		return selected
	}
	return bson.D{{Key: "$and", Value: append(in, selected)}}
}

// Stamp implements syncrun.Store. It sends commands of at most BulkSize updates, and of what the server takes.
func (s *Store) Stamp(ctx context.Context, updates []syncrun.Update, sel syncrun.Selection) (syncrun.Stamped, error) {
	stamps := s.newStamps(sel)
	var stamped syncrun.Stamped
	for len(updates) > 0 {
		command, err := s.newCommand(stamps, updates)
		if err != nil {
			return syncrun.Stamped{}, fmt.Errorf("updating records of %s: %w", s.namespace, err)
		}
		updates = updates[command.took:]
		stamped.Failed = append(stamped.Failed, command.failed...)
		if len(command.sent) == 0 {
			continue
		}
		matched, failed, err := s.write(ctx, command.encoded)
		if err != nil {
			return syncrun.Stamped{}, err
		}
		stamped.Matched += matched
		for _, f := range failed {
			stamped.Failed = append(stamped.Failed, syncrun.Failure{Record: *command.sent[f.Index], Err: f})
		}
	}
	return stamped, nil
}

// write sends one command of updates. It returns how many records the updates applied to, and which updates failed.
func (s *Store) write(ctx context.Context, command bson.Raw) (int64, []mongo.WriteError, error) {
	bounded, cancel := context.WithTimeout(ctx, s.WriteTimeout)
	defer cancel()
	answer, err := s.collection.Database().RunCommand(bounded, command).Raw()
	var refused mongo.WriteException
	switch {
	case err == nil:
		return matched(answer), nil, nil
	case errors.As(err, &refused) && len(refused.WriteErrors) > 0 && !canPass(err) && ctx.Err() == nil:
		return matched(refused.Raw), refused.WriteErrors, nil
	default:
		return 0, nil, s.fail(ctx, "updating records of", err)
	}
}

// matched returns how many records the updates of a command applied to.
func matched(answer bson.Raw) int64 {
	n, _ := answer.Lookup("n").AsInt64OK()
	return n
}

func (s *Store) fail(ctx context.Context, doing string, err error) error {
	return Classify(ctx, doing+" "+s.namespace, err)
}
