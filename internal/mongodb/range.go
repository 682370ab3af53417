package mongodb

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// A large collection is visited in ranges, by several workers at the same time. Finding a range's end, counting it and
// reading it must cost the server no more than that range's part of the index on _id. For almost all ranges two bounds
// say what is in them. Only those that reach from one bracket into another, as few as there are brackets, need the
// conditions over all types, for which the server may have to walk over more.

// conditions returns those that select the _ids of a range; none for the whole collection. Of a range that has a
// beginning but no end they do not leave out MinKey, see after.
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

// exactly is conditions that leave out MinKey as well, for queries whose results nobody can pass over.
func exactly(r syncrun.Range) (bson.A, error) {
	in, err := conditions(r)
	if err == nil && r.After != nil && r.Upto == nil {
		in = append(in, idNotOf(bson.TypeMinKey))
	}
	return in, err
}

// cut finds what Store.EndOfRange returns. It asks with find, which returns the first two _ids that a filter selects behind
// those that are to be skipped.
func cut(after []byte, size int, find func(filter bson.D, skip int) ([]key, error)) ([]byte, error) {
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
			continue // too few in this bracket, or with the last filter in the collection
		}
		if found[0].value().Type == bson.TypeMinKey { // which not every server can be told of later
			return cut(after, size+1, find)
		}
		return found[0], nil // and not MaxKey, as there is one behind it
	}
	return nil, nil
}
