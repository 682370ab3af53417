// Ranges of a large collection. Finding the end of a range, counting it and reading it must cost the server no more than
// that range's part of the index on _id. Two bounds select almost any range. Only a range that reaches from one bracket of
// types into another needs the conditions over all types, for which the server can have to walk over more. There are no more
// of these than brackets.

package mongodb

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// conditions returns the conditions that select the _ids of a range. There are none for the whole collection. If the range has a
// beginning but no end, they do not exclude MinKey, see after.
func conditions(r syncrun.Range) (bson.A, error) {
	var after, upto key
	var err error
	if r.After != nil {
		if after, err = parseKey(r.After); err != nil {
			return nil, err
		}
	}
	if r.Upto != nil {
		if upto, err = parseKey(r.Upto); err != nil {
			return nil, err
		}
	}
	switch {
	case after == nil && upto == nil:
		return nil, nil
	case upto == nil:
		return after.after(), nil
	case after == nil:
		return upto.upto(), nil
	case after.bounds() && upto.bounds() && bracketOf(after.value().Type) == bracketOf(upto.value().Type):
		return bson.A{bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: after.value()}, {Key: "$lte", Value: upto.value()}}}}}, nil
	}
	return append(append(after.after(), upto.upto()...), idNotOf(bson.TypeMinKey)), nil
}

// exactly returns conditions that exclude MinKey, too. It is for queries whose results include no _id to skip.
func exactly(r syncrun.Range) (bson.A, error) {
	in, err := conditions(r)
	if err == nil && r.After != nil && r.Upto == nil {
		in = append(in, idNotOf(bson.TypeMinKey))
	}
	return in, err
}

// endOfRange is Store.EndOfRange, with find, which returns the first two _ids that a filter selects after skipping some.
func endOfRange(after []byte, size int, find func(filter bson.D, skip int) ([]key, error)) ([]byte, error) {
	filters := []bson.D{{}}
	if after != nil {
		behind, err := exactly(syncrun.Range{After: after})
		if err != nil {
			return nil, err
		}
		filters = []bson.D{{{Key: "$and", Value: behind}}}
		if k := key(after); k.bounds() {
			filters = []bson.D{id("$gt", k.value()), filters[0]}
		}
	}
	for _, filter := range filters {
		found, err := find(filter, size-1)
		if err != nil {
			return nil, err
		}
		if len(found) < 2 {
			continue // there are too few in this bracket, or, with the last filter, in the collection
		}
		if found[0].value().Type == bson.TypeMinKey { // no bound, because some servers do not know it
			return endOfRange(after, size+1, find)
		}
		return found[0], nil // which is not MaxKey, because an _id follows
	}
	return nil, nil
}
