// The documents of a collection, in the order of their _ids.

package measuring

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// collection is a sorted list of documents. Inserting is slow, and reading and updating by _id is fast.
type collection struct {
	mu      sync.RWMutex
	list    []*document
	indexes []*index
}

// document is one document. Readers see the one before an update or the one after it.
type document struct {
	id   bson.RawValue
	data atomic.Pointer[bson.Raw]

	updating sync.Mutex
}

func (d *document) raw() bson.Raw { return *d.data.Load() }

// documents returns one document after another, and nil at the end.
type documents func() *document

// listed returns the documents of a list.
func listed(list []*document) documents {
	return func() *document {
		if len(list) == 0 {
			return nil
		}
		d := list[0]
		list = list[1:]
		return d
	}
}

// backwards returns the documents of a list from the last one on.
func backwards(list []*document) documents {
	return func() *document {
		if len(list) == 0 {
			return nil
		}
		d := list[len(list)-1]
		list = list[:len(list)-1]
		return d
	}
}

// snapshot returns the documents of now.
func (c *collection) snapshot() []*document {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.list
}

// search returns the place of the first document in the list whose _id is at or behind the value.
func search(list []*document, id bson.RawValue) int {
	return sort.Search(len(list), func(i int) bool { return compare(list[i].id, id) >= 0 })
}

// within returns the part of the list that has the _ids from after to upto, both included.
func within(list []*document, after, upto *bson.RawValue) []*document {
	first, last := 0, len(list)
	if after != nil {
		first = search(list, *after)
	}
	if upto != nil {
		last = search(list, *upto)
		if last < len(list) && compare(list[last].id, *upto) == 0 {
			last++
		}
	}
	return list[first:max(first, last)]
}

// byID returns the documents that the filter can select, as far as it says of their _ids.
func (c *collection) byID(filter bson.Raw) []*document {
	after, upto := bounds(filter)
	list := within(c.snapshot(), after, upto)
	ids, ok := listOf(filter)
	if !ok {
		return list
	}
	var found []*document
	slices.SortFunc(ids, compare)
	for _, id := range slices.CompactFunc(ids, func(a, b bson.RawValue) bool { return compare(a, b) == 0 }) {
		if i := search(list, id); i < len(list) && compare(list[i].id, id) == 0 {
			found = append(found, list[i])
		}
	}
	return found
}

func (c *collection) find(id bson.RawValue) *document {
	list := c.snapshot()
	if i := search(list, id); i < len(list) && compare(list[i].id, id) == 0 {
		return list[i]
	}
	return nil
}

// insert adds documents, which must have _ids that are new.
func (c *collection) insert(documents []bson.Raw) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := append(make([]*document, 0, len(c.list)+len(documents)), c.list...)
	for _, data := range documents {
		id, err := data.LookupErr("_id")
		if err != nil {
			return errors.New("a document without an _id")
		}
		d := &document{id: id}
		d.data.Store(&data)
		list = append(list, d)
	}
	made := list[len(c.list):]
	ascends := func(list []*document) bool {
		return slices.IsSortedFunc(list, func(a, b *document) int { return compare(a.id, b.id) })
	}
	if !ascends(list[max(0, len(c.list)-1):]) {
		made = slices.Clone(made)
		sort.SliceStable(list, func(i, j int) bool { return compare(list[i].id, list[j].id) < 0 })
	}
	for _, d := range made {
		if i := search(list, d.id); i+1 < len(list) && compare(list[i+1].id, d.id) == 0 {
			return fmt.Errorf("E11000 duplicate key: %s", d.id)
		}
	}
	c.list = list
	for _, d := range made {
		c.reindex(d, nil, d.raw())
	}
	return nil
}

// remove removes the documents that the predicate selects, and returns how many.
func (c *collection) remove(selects predicate) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var kept []*document
	for _, d := range c.list {
		if data := d.raw(); !selects(data) {
			kept = append(kept, d)
		} else {
			c.reindex(d, data, nil)
		}
	}
	removed := len(c.list) - len(kept)
	c.list = kept
	return removed
}

// update applies an update to a document, if the predicate still selects it. It reports whether that is so, and how many keys of
// indexes changed.
func (c *collection) update(d *document, selects predicate, update bson.Raw) (applied bool, keys int, err error) {
	d.updating.Lock()
	defer d.updating.Unlock()
	before := d.raw()
	if !selects(before) {
		return false, 0, nil
	}
	after, err := change(before, update)
	if err != nil {
		return true, 0, err
	}
	if c.storeWithoutIndexes(d, after) {
		return true, 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.data.Store(&after)
	return true, c.reindex(d, before, after), nil
}

// storeWithoutIndexes stores a document's data if the collection has no indexes. Then writers need not wait for each other.
func (c *collection) storeWithoutIndexes(d *document, data bson.Raw) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.indexes) > 0 {
		return false
	}
	d.data.Store(&data)
	return true
}

// change returns the document after an update with $set, $unset, $max and $currentDate of top-level fields.
func change(before, update bson.Raw) (bson.Raw, error) {
	operators, err := update.Elements()
	if err != nil {
		return nil, err
	}
	set, unset := make(map[string]bson.RawValue), make(map[string]bool)
	var names []string // in the order in which they are set
	for _, o := range operators {
		fields, err := o.Value().Document().Elements()
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			name, v := f.Key(), f.Value()
			switch o.Key() {
			case "$set":
			case "$max":
				if old := before.Lookup(name); old.Type != 0 && compare(old, v) >= 0 {
					continue
				}
			case "$currentDate":
				t, data, err := bson.MarshalValue(bson.NewDateTimeFromTime(time.Now()))
				if err != nil {
					return nil, err
				}
				v = bson.RawValue{Type: t, Value: data}
			case "$unset":
				unset[name] = true
				continue
			default:
				return nil, fmt.Errorf("the operator %s is not known", o.Key())
			}
			set[name] = v
			names = append(names, name)
		}
	}
	elements, err := before.Elements()
	if err != nil {
		return nil, err
	}
	after := make(bson.D, 0, len(elements)+len(names))
	for _, e := range elements {
		v, changes := set[e.Key()]
		switch {
		case unset[e.Key()]:
		case changes:
			after = append(after, bson.E{Key: e.Key(), Value: v})
			delete(set, e.Key())
		default:
			after = append(after, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	for _, name := range names {
		if v, left := set[name]; left {
			after = append(after, bson.E{Key: name, Value: v})
			delete(set, name)
		}
	}
	return bson.Marshal(after)
}
