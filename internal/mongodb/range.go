// Ranges of a large collection. Finding the end of a range, counting it and reading it must cost the server no more than
// that range's part of the index on _id. Two bounds select almost any range. Only a range that reaches from one bracket of
// types into another needs the conditions over all types, for which the server can have to walk over more. There are no more
// of these than brackets.

package mongodb

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// alike reports whether a range with one bound is known to reach into no other bracket. Edge returns the first or the last _id of the
// collection, or nil. Such a range needs one bound, and so any server finds it in the index. Many do not for a negated condition.
func alike(r syncrun.Range, edge func(last bool) (key, error)) (bool, error) {
	bound, last := r.After, true
	if r.After == nil {
		bound, last = r.Upto, false
	}
	if (r.After == nil) == (r.Upto == nil) {
		return false, nil
	}
	from, err := parseKey(bound)
	if err != nil || !from.bounds() {
		return false, err
	}
	at, err := edge(last)
	if err != nil || at == nil {
		return false, err
	}
	return at.bounds() && bracketOf(at.value().Type) == bracketOf(from.value().Type), nil
}

// conditions returns the conditions that select the _ids of a range. There are none for the whole collection. If the range has a
// beginning but no end, they do not exclude MinKey, see after. Alike says that the range reaches into no other bracket.
func conditions(r syncrun.Range, alike bool) (bson.A, error) {
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
	case upto == nil && alike:
		return bson.A{id("$gt", after.value())}, nil
	case upto == nil:
		return after.after(), nil
	case after == nil && alike:
		return bson.A{id("$lte", upto.value())}, nil
	case after == nil:
		return upto.upto(), nil
	case after.bounds() && upto.bounds() && bracketOf(after.value().Type) == bracketOf(upto.value().Type):
		return bson.A{bson.D{{Key: "_id", Value: bson.D{{Key: "$gt", Value: after.value()}, {Key: "$lte", Value: upto.value()}}}}}, nil
	}
	return append(append(after.after(), upto.upto()...), idNotOf(bson.TypeMinKey)), nil
}

// exactly returns conditions that exclude MinKey, too. It is for queries whose results include no _id to skip.
func exactly(r syncrun.Range, alike bool) (bson.A, error) {
	in, err := conditions(r, alike)
	if err == nil && r.After != nil && r.Upto == nil && !alike {
		in = append(in, idNotOf(bson.TypeMinKey))
	}
	return in, err
}

// endOfRange is Store.EndOfRange, with find, which returns the first two _ids that a filter selects after skipping some, and edge of
// alike.
func endOfRange(after []byte, size int, find func(filter bson.D, skip int) ([]key, error), edge func(last bool) (key, error)) ([]byte, error) {
	filter := bson.D{}
	if after != nil {
		rest := syncrun.Range{After: after}
		behind, err := exactly(rest, false)
		if err != nil {
			return nil, err
		}
		filter = bson.D{{Key: "$and", Value: behind}}
		if k := key(after); k.bounds() {
			found, err := find(id("$gt", k.value()), size-1)
			if err != nil {
				return nil, err
			}
			if len(found) == 2 {
				return found[0], nil
			}
			// There are too few in this bracket.
			if alike, err := alike(rest, edge); alike || err != nil {
				return nil, err
			}
		}
	}
	found, err := find(filter, size-1)
	if err != nil || len(found) < 2 {
		return nil, err
	}
	if found[0].value().Type == bson.TypeMinKey { // no bound, because some servers do not know it
		return endOfRange(after, size+1, find, edge)
	}
	return found[0], nil // which is not MaxKey, because an _id follows
}
