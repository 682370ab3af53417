// The product's own index on the stamp. With it an incremental run finds the due records without a walk over all, if they are few.
//
// A query by the index only names records that can be due. What a run visits is still decided by the filter of every other run, and
// read in the order of _id: the _ids are one more condition for it.

package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	// mostFew is how many records are few, and fewShare says that they are at most a tenth of the collection. More are read
	// faster in the order of _id, and then the look in vain must have cost next to nothing.
	mostFew  = syncrun.DefaultRangeSize
	fewShare = 10
	// maxFewBytes bounds their _ids, which are in one command.
	maxFewBytes = 4 << 20
	// fewTimeout bounds the whole look. A server that needs longer does not help.
	fewTimeout = 10 * time.Second
	// keepInterval is how often KeepIndex looks whether the index is still there, and keepWait how long it waits at most after an error.
	keepInterval = time.Hour
	keepWait     = time.Minute
	// makeIndexTimeout bounds the making of the indexes. For a hundred million records a server takes minutes. It gives up an
	// index for which nothing waits any more.
	makeIndexTimeout = time.Hour
)

// indexName is the name of the index on a stamp. A query names the index, because one that a person made with the same fields can
// leave records out.
func (f stampField) indexName() string { return "codex_jobs_" + string(f) }

// arraysName is the name of an index with nothing but the records whose stamp is an array. For them the index on the stamp has an
// entry for each element. So an array of fresh dates is found among fresh dates only.
func (f stampField) arraysName() string { return f.indexName() + "_arrays" }

func (f stampField) isArray() bson.D { return f.is(bson.D{{Key: "$type", Value: "array"}}) }

// indexes returns both. With the _id in it a server need not read the records that it finds.
func (f stampField) indexes() []mongo.IndexModel {
	return []mongo.IndexModel{
		{
			Keys:    bson.D{{Key: string(f), Value: 1}, {Key: "_id", Value: 1}},
			Options: options.Index().SetName(f.indexName()),
		},
		{
			// Other fields than those of the first: servers before MongoDB 5.0 tell indexes by their fields alone.
			Keys:    bson.D{{Key: string(f), Value: 1}, {Key: "_id", Value: -1}},
			Options: options.Index().SetName(f.arraysName()).SetPartialFilterExpression(f.isArray()),
		},
	}
}

// fewQuery is a query by an index for records that are due.
type fewQuery struct {
	filter bson.D
	index  string
}

// otherTypes are the types of stamps that are no dates, without null and array, and oldTypes those that some servers do not know.
var (
	otherTypes = bson.A{"number", "string", "object", "binData", "objectId", "bool", "timestamp", "regex"}
	oldTypes   = bson.A{
		int32(-1), // MinKey
		int32(bson.TypeUndefined), int32(bson.TypeSymbol), int32(bson.TypeDBPointer), int32(bson.TypeJavaScript),
		int32(bson.TypeCodeWithScope), int32(bson.TypeMaxKey),
	}
)

// fewQueries returns queries that together select each record of an incremental selection at least once, and no other.
//
// A server walks in an index between bounds, and it makes none of a condition with $not. So the types of stamps that are no date are
// named. For each of them it walks over one stretch of the index.
func (f stampField) fewQueries(sel syncrun.Selection) []fewQuery {
	is := func(operator string, operand any) bson.D { return f.is(bson.D{{Key: operator, Value: operand}}) }
	common := slices.Concat(otherTypes, bson.A{"null", "array", "date"})
	queries := []bson.D{
		is("$lte", date(sel.Reference.Add(-sel.Freshness))),
		is("$gt", date(sel.Latest())),
		f.is(date(sel.Reference)),
		f.is(nil), // also a stamp that is missing
		is("$type", otherTypes),
		// The bounds are those of the last condition. The first two are for servers that refuse to compare with types that they do not know.
		{{Key: "$and", Value: bson.A{is("$exists", true), is("$not", bson.D{{Key: "$type", Value: common}}), is("$type", oldTypes)}}},
	}
	found := []fewQuery{{f.isArray(), f.arraysName()}}
	for _, filter := range queries {
		found = append(found, fewQuery{filter, f.indexName()})
	}
	return found
}

// MakeIndex makes the index on the stamp, unless it is there, and returns when the server has made it. From then on Few uses it. It
// makes no collection. The error wraps syncrun.ErrUnavailable if it can pass.
func (s *Store) MakeIndex(ctx context.Context) error {
	const making = "making an index of"
	exists, err := s.Exists(ctx)
	if err != nil {
		return err
	}
	if !exists { // the server would make it with the index, and a wrong name would be noticed by no one
		return fmt.Errorf("%s %s: %w: the collection does not exist", making, s.namespace, syncrun.ErrUnavailable)
	}
	bounded, cancel := context.WithTimeout(ctx, makeIndexTimeout)
	defer cancel()
	_, err = s.collection.Indexes().CreateMany(bounded, stampField(s.SyncedField).indexes())
	if err == nil || !canPass(err) { // otherwise it is not known, and what was holds
		s.indexed.Store(err == nil)
	}
	if err != nil {
		return s.fail(ctx, making, err)
	}
	return nil
}

// KeepIndex makes the index, and again if it is gone, until ctx ends. It logs once why it cannot. Then runs do without.
func (s *Store) KeepIndex(ctx context.Context, log *slog.Logger) {
	const consequence = "incremental runs read all records"
	stamp := stampField(s.SyncedField)
	log = log.With("collection", s.namespace, "index", stamp.indexName())
	was := "" // what the log said last
	say := func(level slog.Level, now, text string, about ...any) {
		if ctx.Err() == nil && now != was {
			was = now
			log.Log(ctx, level, text, about...)
		}
	}
	retry := firstWait
	for {
		err := s.MakeIndex(ctx)
		wait := retry
		switch {
		case err == nil:
			say(slog.LevelInfo, "made", "The index for incremental runs is there")
			wait, retry = keepInterval, firstWait
		case LacksRight(err):
			say(slog.LevelWarn, "right", "The user of MongoDB lacks a right for the index of SYNC_INDEX", "right", "createIndex",
				"consequence", consequence, "error", err)
			wait = keepWait
		case errors.Is(err, syncrun.ErrUnavailable):
			retry = min(2*retry, keepWait)
			log.Debug("Could not make the index for incremental runs yet, trying again", "error", err, "retryIn", wait.String())
		default:
			say(slog.LevelWarn, "refused", "Could not make the index of SYNC_INDEX", "consequence", consequence, "error", err)
			wait = keepInterval
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// Few implements syncrun.Finder. Without the index it sends no command.
func (s *Store) Few(ctx context.Context, sel syncrun.Selection) (syncrun.Store, bool, error) {
	if sel.Full || !s.indexed.Load() {
		return nil, false, nil
	}
	bounded, cancel := context.WithTimeout(ctx, min(fewTimeout, s.ReadTimeout))
	defer cancel()
	ids, few, err := s.fewIDs(bounded, sel)
	if err != nil {
		return nil, false, s.fail(ctx, "looking for few records of", err)
	}
	if !few {
		return nil, false, nil
	}
	narrowed := *s
	narrowed.only = ids
	return &narrowed, true, nil
}

// fewIDs returns the _ids of the records that are due, and false if they are not few.
func (s *Store) fewIDs(ctx context.Context, sel syncrun.Selection) (ids bson.A, few bool, err error) {
	all, err := s.collection.EstimatedDocumentCount(ctx) // which the server need not count
	if err != nil {
		return nil, false, err
	}
	most := int(min(mostFew, all/fewShare))
	if most == 0 {
		return nil, false, nil
	}
	ids = bson.A{}
	seen := make(map[string]bool) // an array can be found by each of its elements
	size := 0
	for _, q := range stampField(s.SyncedField).fewQueries(sel) {
		opts := options.Find().SetHint(q.index).SetProjection(byID).SetLimit(int64(most) + 1).SetBatchSize(int32(most) + 1)
		found, err := s.collection.Find(ctx, q.filter, opts)
		if err != nil {
			return nil, false, err
		}
		var docs []bson.Raw
		if err := found.All(ctx, &docs); err != nil {
			return nil, false, err
		}
		for _, doc := range docs {
			k := newKey(doc.Lookup("_id"))
			if seen[string(k)] {
				continue
			}
			seen[string(k)] = true
			ids, size = append(ids, k.value()), size+len(k)
			if size > maxFewBytes || looksLikeOperator(k.value()) {
				return nil, false, nil
			}
		}
		if len(docs) > most || len(ids) > most {
			return nil, false, nil
		}
	}
	return ids, true, nil
}

// looksLikeOperator reports whether a server could take the _id for an operator in a list of _ids, and refuse it.
func looksLikeOperator(id bson.RawValue) bool {
	doc, ok := id.DocumentOK()
	if !ok {
		return false
	}
	elements, err := doc.Elements()
	return err != nil || len(elements) > 0 && strings.HasPrefix(elements[0].Key(), "$")
}
