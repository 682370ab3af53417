// Indexes besides the one on _id: the keys of a collection in a tree, which each update keeps up to date. A find walks between the bounds
// that a real server would find for its filter.

package measuring

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// keyPart is a field of an index, or of a sort, and its direction.
type keyPart struct {
	field     string
	direction int
}

// index is the keys of a collection. The collection's lock is for it, too.
type index struct {
	name    string
	spec    bson.Raw
	parts   []keyPart
	only    bson.Raw  // the filter of a partial index, or nil
	partial predicate // of that
	keys    *btree.BTreeG[indexKey]
	// multikey is true once a document had an array, and so a key for each of its elements. It stays true, as on a real server.
	multikey bool
}

// indexKey is a key of a document, or a place between keys: behind the first values, at the bound.
type indexKey struct {
	values   []bson.RawValue
	document *document
	bound    *bound
}

// bound is a place in the order of all values: before a value or after it, or, without one, before or after all values of a bracket.
type bound struct {
	bracket int
	value   *bson.RawValue
	after   bool
}

// interval is the values between two places.
type interval struct{ from, upto bound }

// everything is all values.
var everything = []interval{{bound{bracket: bracket(bson.TypeMinKey)}, bound{bracket: bracket(bson.TypeMaxKey), after: true}}}

// compareTo returns the order of the place and a value. It is never 0.
func (b bound) compareTo(v bson.RawValue) int {
	if n := b.bracket - bracket(v.Type); n != 0 {
		return n
	}
	if b.value != nil {
		if n := compare(*b.value, v); n != 0 {
			return n
		}
	}
	if b.after {
		return 1
	}
	return -1
}

// compareBounds returns the order of two places.
func compareBounds(a, b bound) int {
	side := func(b bound) int {
		if b.after {
			return 1
		}
		return -1
	}
	switch {
	case a.bracket != b.bracket:
		return a.bracket - b.bracket
	case a.value == nil:
		if b.value == nil {
			return side(a) - side(b)
		}
		return side(a)
	case b.value == nil:
		return -side(b)
	}
	if n := compare(*a.value, *b.value); n != 0 {
		return n
	}
	return side(a) - side(b)
}

// intersect returns what is in both lists of intervals, which are in order.
func intersect(a, b []interval) []interval {
	var both []interval
	for _, x := range a {
		for _, y := range b {
			i := interval{slices.MaxFunc([]bound{x.from, y.from}, compareBounds), slices.MinFunc([]bound{x.upto, y.upto}, compareBounds)}
			if compareBounds(i.from, i.upto) < 0 {
				both = append(both, i)
			}
		}
	}
	return both
}

// intervalsOf returns where a filter looks for the values of a field, and whether the keys there are enough to answer it: otherwise the
// documents must be read.
func intervalsOf(filter bson.Raw, field string) (intervals []interval, exact bool) {
	intervals, exact = everything, true
	elements, _ := filter.Elements()
	and := func(more []interval, ok bool) { intervals, exact = intersect(intervals, more), exact && ok }
	for _, e := range elements {
		switch v := e.Value(); {
		case e.Key() == "$and":
			values, _ := v.Array().Values()
			for _, each := range values {
				and(intervalsOf(each.Document(), field))
			}
		case e.Key() != field:
			exact = false
		case v.Type == bson.TypeEmbeddedDocument:
			operators, _ := v.Document().Elements()
			for _, o := range operators {
				and(intervalsOfOperator(o.Key(), o.Value()))
			}
		case v.Type == bson.TypeRegex:
			and(intervalsOfPattern(v), false)
		case v.Type == bson.TypeArray:
			exact = false
		default:
			and(intervalsOfOperator("$eq", v))
		}
	}
	return intervals, exact
}

func intervalsOfOperator(name string, v bson.RawValue) (intervals []interval, exact bool) {
	ofBracket := func(t bson.Type) interval {
		return interval{bound{bracket: bracket(t)}, bound{bracket: bracket(t), after: true}}
	}
	i := ofBracket(v.Type)
	before, after := bound{bracket(v.Type), &v, false}, bound{bracket(v.Type), &v, true}
	switch name {
	case "$eq":
		return []interval{{before, after}}, v.Type != bson.TypeNull // the key of a missing field is null
	case "$lt":
		return []interval{{i.from, before}}, true
	case "$lte":
		return []interval{{i.from, after}}, true
	case "$gt":
		return []interval{{after, i.upto}}, true
	case "$gte":
		return []interval{{before, i.upto}}, true
	case "$type":
		types, err := typesOf(v)
		if err != nil || slices.Contains(types, bson.TypeArray) {
			return everything, false
		}
		exact = true
		slices.SortFunc(types, func(a, b bson.Type) int { return bracket(a) - bracket(b) })
		types = slices.CompactFunc(types, func(a, b bson.Type) bool { return bracket(a) == bracket(b) })
		for _, t := range types {
			exact = exact && t != bson.TypeNull && t != bson.TypeUndefined
			intervals = append(intervals, ofBracket(t))
		}
		return intervals, exact
	}
	return everything, false
}

// beginningPattern is a pattern that only says how a text begins.
var beginningPattern = regexp.MustCompile(`^\^(?:[^\\.*+?()|\[\]{}^$]|\\[^\pL\pN])+$`)

// intervalsOfPattern returns where texts can be that match. A real server stops at the next text that begins otherwise, too.
func intervalsOfPattern(v bson.RawValue) []interval {
	pattern, _ := v.Regex()
	if !beginningPattern.MatchString(pattern) {
		return everything
	}
	text := strings.ReplaceAll(pattern[1:], `\`, "")
	from, upto := stringValue(text), stringValue(text+"\xff")
	return []interval{{bound{bracket(from.Type), &from, false}, bound{bracket(upto.Type), &upto, false}}}
}

func stringValue(text string) bson.RawValue {
	return bson.RawValue{Type: bson.TypeString, Value: bsoncore.AppendString(nil, text)}
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

// newIndex reads the specification of an index, which has no keys yet.
func newIndex(spec bson.Raw) (*index, error) {
	parts, err := parseKey(spec.Lookup("key").Document())
	if err != nil {
		return nil, err
	}
	x := &index{name: spec.Lookup("name").StringValue(), spec: spec, parts: parts}
	if only, ok := spec.Lookup("partialFilterExpression").DocumentOK(); ok {
		x.only = only
		if x.partial, err = parseFilter(only); err != nil {
			return nil, err
		}
	}
	elements, _ := spec.Elements()
	for _, e := range elements {
		switch e.Key() {
		case "key", "name", "partialFilterExpression", "v", "expireAfterSeconds":
		default:
			return nil, fmt.Errorf("indexes with the option %s are not known", e.Key())
		}
	}
	x.keys = btree.NewBTreeGOptions(func(a, b indexKey) bool { return x.compare(a, b) < 0 }, btree.Options{NoLocks: true})
	return x, nil
}

func (x *index) compare(a, b indexKey) int {
	for i, p := range x.parts {
		switch {
		case i == len(a.values) && a.bound != nil:
			return a.bound.compareTo(b.values[i]) * p.direction
		case i == len(b.values) && b.bound != nil:
			return -b.bound.compareTo(a.values[i]) * p.direction
		}
		if n := compare(a.values[i], b.values[i]); n != 0 {
			return n * p.direction
		}
	}
	return compare(a.document.id, b.document.id)
}

// keysOf returns the keys of a document as it was or is.
func (x *index) keysOf(d *document, data bson.Raw) []indexKey {
	if data == nil || x.partial != nil && !x.partial(data) {
		return nil
	}
	keys := []indexKey{{values: make([]bson.RawValue, len(x.parts)), document: d}}
	for i, p := range x.parts {
		v := data.Lookup(p.field)
		elements := []bson.RawValue{v}
		if v.Type == bson.TypeArray {
			x.multikey = true
			if elements, _ = v.Array().Values(); len(elements) == 0 {
				elements = []bson.RawValue{{Type: bson.TypeUndefined}}
			}
		}
		var all []indexKey
		for _, k := range keys {
			for _, element := range elements {
				values := slices.Clone(k.values)
				values[i] = element
				all = append(all, indexKey{values: values, document: d})
			}
		}
		keys = all
	}
	return keys
}

// reindex replaces the keys of a document after a change. Before is nil for a new document, and after for one that is gone. It returns
// how many keys were removed and added. The caller has the lock.
func (c *collection) reindex(d *document, before, after bson.Raw) (changed int) {
	for _, x := range c.indexes {
		old, made := x.keysOf(d, before), x.keysOf(d, after)
		if slices.EqualFunc(old, made, func(a, b indexKey) bool { return x.compare(a, b) == 0 }) {
			continue
		}
		for _, k := range old {
			x.keys.Delete(k)
		}
		for _, k := range made {
			x.keys.Set(k)
		}
		changed += len(old) + len(made)
	}
	return changed
}

// addIndex makes an index, unless it is there.
func (c *collection) addIndex(made *index) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.indexes {
		switch same := slices.Equal(x.parts, made.parts) && bytes.Equal(x.only, made.only); {
		case same && x.name == made.name:
			return nil
		case same || x.name == made.name:
			return fmt.Errorf("the index %s is there with other options, or under another name: %s", made.name, x.name)
		}
	}
	for _, d := range c.list {
		for _, k := range made.keysOf(d, d.raw()) {
			made.keys.Set(k)
		}
	}
	c.indexes = append(slices.Clip(c.indexes), made)
	return nil
}

// dropIndexes drops the index of a name, or all with "*".
func (c *collection) dropIndexes(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(c.indexes), func(x *index) bool { return name == "*" || x.name == name })
	if len(kept) == len(c.indexes) && name != "*" {
		return fmt.Errorf("index not found with name [%s]", name)
	}
	c.indexes = kept
	return nil
}

// walk returns the documents of an index whose first fields have the values, and the next one is in the intervals. They are those of
// now. It also returns whether the index is multikey. The caller has the lock.
func (x *index) walk(first []bson.RawValue, intervals []interval) documents {
	keys := x.keys.Copy()
	type stretch struct{ from, upto indexKey }
	var stretches []stretch
	for _, i := range intervals {
		s := stretch{indexKey{values: first, bound: &i.from}, indexKey{values: first, bound: &i.upto}}
		if x.parts[len(first)].direction < 0 {
			s.from, s.upto = s.upto, s.from
		}
		stretches = append(stretches, s)
	}
	if x.parts[len(first)].direction < 0 {
		slices.Reverse(stretches)
	}
	var seen map[*document]bool
	if x.multikey {
		seen = make(map[*document]bool)
	}
	at, begun := keys.Iter(), false
	return func() *document {
		for len(stretches) > 0 {
			var more bool
			if begun {
				more = at.Next()
			} else {
				more = at.Seek(stretches[0].from)
				begun = true
			}
			if !more || x.compare(at.Item(), stretches[0].upto) > 0 {
				stretches, begun = stretches[1:], false
				continue
			}
			d := at.Item().document
			if seen != nil {
				if seen[d] {
					continue
				}
				seen[d] = true
			}
			return d
		}
		return nil
	}
}

// hinted returns the documents that a filter can select, by the index of a name, and whether its keys are enough for the filter and the
// fields.
func (c *collection) hinted(name string, filter bson.Raw, fields map[string]bool) (found documents, covered bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.indexes, func(x *index) bool { return x.name == name })
	if at < 0 {
		return nil, false, errors.New("hint provided does not correspond to an existing index")
	}
	x := c.indexes[at]
	if x.only != nil && !bytes.Equal(x.only, filter) {
		return nil, false, fmt.Errorf("the index %s does not have all documents that the filter asks for", name)
	}
	intervals, exact := intervalsOf(filter, x.parts[0].field)
	covered = exact && !x.multikey && fields != nil
	for field := range fields {
		covered = covered && slices.ContainsFunc(x.parts, func(p keyPart) bool { return p.field == field })
	}
	return x.walk(nil, intervals), covered, nil
}

// inOrder returns the documents that a filter can select, in the order of the sort: those of the index with the most fields that the
// filter asks for by value. Without one it is an error: a real server would sort in memory. It also returns the index that finds those
// that have a text with a beginning, if the filter asks for that: they come in no order.
func (c *collection) inOrder(filter bson.Raw, order []keyPart) (ordered, beginning documents, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	equal := make(map[string]bson.RawValue)
	elements, _ := filter.Elements()
	for _, e := range elements {
		if v := e.Value(); v.Type != bson.TypeEmbeddedDocument && v.Type != bson.TypeRegex && v.Type != bson.TypeArray {
			equal[e.Key()] = v
		}
	}
	var best *index
	var prefix int
	for _, x := range c.indexes {
		n := len(x.parts) - len(order)
		if n < 0 || x.only != nil || !slices.Equal(x.parts[n:], order) ||
			slices.ContainsFunc(x.parts[:n], func(p keyPart) bool { _, ok := equal[p.field]; return !ok }) {
			continue
		}
		if best == nil || n > prefix {
			best, prefix = x, n
		}
	}
	if best == nil {
		return nil, nil, fmt.Errorf("no index has the order %v", order)
	}
	var first []bson.RawValue
	for _, p := range best.parts[:prefix] {
		first = append(first, equal[p.field])
	}
	for _, x := range c.indexes {
		asked, err := filter.LookupErr(x.parts[0].field)
		if err == nil && asked.Type == bson.TypeRegex && x.only == nil {
			intervals, _ := intervalsOf(filter, x.parts[0].field)
			beginning = x.walk(nil, intervals)
		}
	}
	intervals, _ := intervalsOf(filter, order[0].field)
	return best.walk(first, intervals), beginning, nil
}

// tried does what a planner does who knows two ways to the first documents: it goes both in turns until one has come to its end. It
// returns the documents of that way in their order, with how many documents it has read for that.
func tried(ordered, beginning documents, selects predicate, limit int, order []keyPart) (found documents, read int) {
	var inOrder, matching []*document
	for ; ; read += 2 {
		d := ordered()
		if d != nil && selects(d.raw()) {
			inOrder = append(inOrder, d)
		}
		if d == nil || len(inOrder) == limit {
			return listed(inOrder), read
		}
		d = beginning()
		if d != nil && selects(d.raw()) {
			matching = append(matching, d)
		}
		if d == nil {
			slices.SortStableFunc(matching, func(a, b *document) int {
				for _, p := range order {
					if n := compare(a.raw().Lookup(p.field), b.raw().Lookup(p.field)); n != 0 {
						return n * p.direction
					}
				}
				return 0
			})
			return listed(matching), read
		}
	}
}
