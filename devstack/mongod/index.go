// Indexes besides the one on _id. A find that sorts by something else takes the one that fits best, as a real server's planner would.

package mongod

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// keyPart is a field of an index, or of a sort, and its direction.
type keyPart struct {
	field     string
	direction int
}

// index is the documents of a collection in the order of its parts. The first len(parts) values of each are its key.
type index struct {
	parts []keyPart
	list  []*document
}

// parseKey reads the fields of an index or of a sort.
func parseKey(spec bson.Raw) ([]keyPart, error) {
	elements, err := spec.Elements()
	if err != nil {
		return nil, err
	}
	var parts []keyPart
	for _, e := range elements {
		direction := int(number(e.Value()))
		if !e.Value().IsNumber() || direction != 1 && direction != -1 {
			return nil, fmt.Errorf("an index must have directions of 1 and -1, had %s", spec)
		}
		parts = append(parts, keyPart{e.Key(), direction})
	}
	return parts, nil
}

// compareBy returns the order of two documents.
func compareBy(parts []keyPart, a, b bson.Raw) int {
	for _, p := range parts {
		if n := compare(a.Lookup(p.field), b.Lookup(p.field)); n != 0 {
			return n * p.direction
		}
	}
	return 0
}

// reindex brings the indexes up to date. It is slow, as it is for the loading of documents only. The caller has the lock.
func (c *collection) reindex() {
	for i, x := range c.indexes {
		list := slices.Clone(c.list)
		slices.SortStableFunc(list, func(a, b *document) int { return compareBy(x.parts, a.raw(), b.raw()) })
		c.indexes[i] = &index{x.parts, list} // a new one, because finds have the old one
	}
}

// addIndex makes an index, unless there is such a one.
func (c *collection) addIndex(parts []keyPart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.ContainsFunc(c.indexes, func(x *index) bool { return slices.Equal(x.parts, parts) }) {
		c.indexes = append(c.indexes, &index{parts: parts})
		c.reindex()
	}
}

// inOrder returns the documents that a filter can select, in the order of the sort: those of the index with the most fields that the
// filter asks for by value. Without one it is an error: a real server would sort in memory.
func (c *collection) inOrder(filter bson.Raw, order []keyPart) ([]*document, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	equal := make(map[string]bson.RawValue)
	elements, _ := filter.Elements()
	var upto *bson.RawValue // of the first field of the sort, in its direction
	for _, e := range elements {
		v := e.Value()
		switch {
		case v.Type != bson.TypeEmbeddedDocument && v.Type != bson.TypeRegex && v.Type != bson.TypeArray:
			equal[e.Key()] = v
		case v.Type == bson.TypeEmbeddedDocument && e.Key() == order[0].field:
			for _, name := range []string{"$lt", "$lte"} {
				if bound, err := v.Document().LookupErr(name); err == nil && order[0].direction < 0 {
					upto = &bound
				}
			}
		}
	}
	var best *index
	var prefix int
	for _, x := range c.indexes {
		n := len(x.parts) - len(order)
		if n < 0 || !slices.Equal(x.parts[n:], order) || slices.ContainsFunc(x.parts[:n], func(p keyPart) bool { _, ok := equal[p.field]; return !ok }) {
			continue
		}
		if best == nil || n > prefix {
			best, prefix = x, n
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no index has the order %v", order)
	}
	before := func(d bson.Raw) int { // -1 for a document before the wanted ones, 1 for one behind them
		for _, p := range best.parts[:prefix] {
			if n := compare(d.Lookup(p.field), equal[p.field]) * p.direction; n != 0 {
				return cmp.Compare(n, 0)
			}
		}
		if upto != nil && compare(d.Lookup(order[0].field), *upto) > 0 {
			return -1
		}
		return 0
	}
	first := sort.Search(len(best.list), func(i int) bool { return before(best.list[i].raw()) >= 0 })
	last := sort.Search(len(best.list), func(i int) bool { return before(best.list[i].raw()) > 0 })
	return best.list[first:last], nil
}
