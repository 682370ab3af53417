// The commands that the server knows.

package measuring

import (
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// firstBatch is how many documents a find returns at once, unless the client says it.
	firstBatch = 101
	// maxBatch bounds a batch of a cursor, in bytes.
	maxBatch = 16 << 20
)

// cursor is what a find has left.
type cursor struct {
	namespace string
	next      *document // the next one, or nil
	rest      documents // behind it
	selects   predicate
	project   map[string]bool // nil for all fields
	keysOnly  bool            // the index has all that is asked for
	limit     int             // 0 for none
	read      int             // documents that were read to find out where to look
}

// answer returns the answer to a command.
func (s *Server) answer(m *message) bson.Raw {
	elements, err := m.command.Elements()
	if err != nil || len(elements) == 0 {
		return failure(fmt.Errorf("a command that cannot be read: %w", err))
	}
	var fields bson.D
	switch name := elements[0].Key(); name {
	case "hello", "isMaster", "ismaster":
		fields = bson.D{
			{Key: "ismaster", Value: true}, {Key: "isWritablePrimary", Value: true}, {Key: "helloOk", Value: true},
			{Key: "maxBsonObjectSize", Value: 16 << 20}, {Key: "maxMessageSizeBytes", Value: 48 << 20}, {Key: "maxWriteBatchSize", Value: 100_000},
			{Key: "localTime", Value: time.Now()}, {Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 21},
			{Key: "logicalSessionTimeoutMinutes", Value: 30}, {Key: "connectionId", Value: 1},
		}
	case "createIndexes":
		fields, err = s.createIndexes(m)
	case "listIndexes":
		fields = s.listIndexes(m)
	case "dropIndexes":
		fields, err = bson.D{}, s.collection(s.namespaceOf(m, name)).dropIndexes(m.text("index"))
	case "ping", "endSessions", "killCursors", "dropDatabase", "drop":
		fields, err = s.administer(name, m)
	case "buildInfo":
		fields = bson.D{{Key: "version", Value: "7.0.0"}, {Key: "versionArray", Value: bson.A{7, 0, 0, 0}}}
	case "listCollections":
		fields, err = s.listCollections(m)
	case "insert":
		fields, err = s.insert(m)
	case "delete":
		fields, err = s.delete(m)
	case "find":
		fields, err = s.find(m)
	case "getMore":
		fields, err = s.getMore(m)
	case "count":
		fields, err = s.size(m)
	case "aggregate":
		fields, err = s.count(m)
	case "update":
		fields, err = s.update(m)
	default:
		err = fmt.Errorf("no such command: %s", name)
	}
	if err != nil {
		return failure(err)
	}
	return encode(append(fields, bson.E{Key: "ok", Value: 1.0}))
}

func encode(fields bson.D) bson.Raw {
	data, err := bson.Marshal(fields)
	if err != nil {
		panic(err) // a programming error
	}
	return data
}

func failure(err error) bson.Raw {
	return encode(bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: err.Error()}, {Key: "code", Value: 59}, {Key: "codeName", Value: "CommandNotFound"}})
}

// text returns a member that is a text, or "".
func (m *message) text(name string) string {
	text, _ := m.command.Lookup(name).StringValueOK()
	return text
}

// integer returns a member that is a number, or the default.
func (m *message) integer(name string, byDefault int) int {
	if v := m.command.Lookup(name); v.IsNumber() {
		return int(number(v))
	}
	return byDefault
}

// listed returns the documents of a member that is an array, wherever the client put them.
func (m *message) listed(name string) ([]bson.Raw, error) {
	if m.field == name {
		return m.documents, nil
	}
	values, err := m.command.Lookup(name).Array().Values()
	if err != nil {
		return nil, err
	}
	list := make([]bson.Raw, len(values))
	for i, v := range values {
		list[i] = v.Document()
	}
	return list, nil
}

func (s *Server) namespaceOf(m *message, command string) string {
	return m.text("$db") + "." + m.text(command)
}

// collection returns a collection, which it makes if there is none.
func (s *Server) collection(namespace string) *collection {
	s.mu.RLock()
	c := s.collections[namespace]
	s.mu.RUnlock()
	if c != nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.collections[namespace] == nil {
		s.collections[namespace] = new(collection)
	}
	return s.collections[namespace]
}

func (s *Server) administer(name string, m *message) (bson.D, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch name {
	case "drop":
		delete(s.collections, s.namespaceOf(m, name))
	case "dropDatabase":
		for namespace := range s.collections {
			if strings.HasPrefix(namespace, m.text("$db")+".") {
				delete(s.collections, namespace)
			}
		}
	case "killCursors":
		ids, _ := m.command.Lookup("cursors").Array().Values()
		for _, id := range ids {
			delete(s.cursors, id.Int64())
		}
	}
	return bson.D{}, nil
}

func (s *Server) createIndexes(m *message) (bson.D, error) {
	list, err := m.listed("indexes")
	if err != nil {
		return nil, err
	}
	for _, spec := range list {
		made, err := newIndex(spec)
		if err == nil {
			err = s.collection(s.namespaceOf(m, "createIndexes")).addIndex(made)
		}
		if err != nil {
			return nil, err
		}
	}
	return bson.D{}, nil
}

func (s *Server) listIndexes(m *message) bson.D {
	namespace := s.namespaceOf(m, "listIndexes")
	c := s.collection(namespace)
	c.mu.RLock()
	defer c.mu.RUnlock()
	batch := bson.A{bson.D{{Key: "v", Value: 2}, {Key: "key", Value: bson.D{{Key: "_id", Value: 1}}}, {Key: "name", Value: "_id_"}}}
	for _, x := range c.indexes {
		batch = append(batch, x.spec)
	}
	return firstOf(namespace, 0, batch)
}

func (s *Server) listCollections(m *message) (bson.D, error) {
	filter, _ := m.command.Lookup("filter").DocumentOK()
	selects, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	database := m.text("$db")
	found := bson.A{}
	for namespace, c := range s.collections {
		name, ok := strings.CutPrefix(namespace, database+".")
		if !ok || len(c.snapshot()) == 0 {
			continue
		}
		if described := encode(bson.D{{Key: "name", Value: name}, {Key: "type", Value: "collection"}}); selects(described) {
			found = append(found, described)
		}
	}
	return firstOf(database+".$cmd.listCollections", 0, found), nil
}

// firstOf returns the first batch of a cursor.
func firstOf(namespace string, id int64, batch bson.A) bson.D {
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "firstBatch", Value: batch}, {Key: "id", Value: id}, {Key: "ns", Value: namespace}}}}
}

func (s *Server) insert(m *message) (bson.D, error) {
	documents, err := m.listed("documents")
	if err != nil {
		return nil, err
	}
	if err := s.collection(s.namespaceOf(m, "insert")).insert(documents); err != nil {
		refused := bson.D{{Key: "index", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: err.Error()}}
		return bson.D{{Key: "n", Value: 0}, {Key: "writeErrors", Value: bson.A{refused}}}, nil //nolint:nilerr // the answer has it
	}
	return bson.D{{Key: "n", Value: len(documents)}}, s.log.commit(make([]byte, 64))
}

func (s *Server) delete(m *message) (bson.D, error) {
	list, err := m.listed("deletes")
	if err != nil {
		return nil, err
	}
	n := 0
	for _, each := range list {
		selects, err := parseFilter(each.Lookup("q").Document())
		if err != nil {
			return nil, err
		}
		n += s.collection(s.namespaceOf(m, "delete")).remove(selects)
	}
	return bson.D{{Key: "n", Value: n}}, nil
}

func (s *Server) update(m *message) (bson.D, error) {
	list, err := m.listed("updates")
	if err != nil {
		return nil, err
	}
	c := s.collection(s.namespaceOf(m, "update"))
	matched := 0
	upserted := bson.A{}
	for i, each := range list {
		query, change := each.Lookup("q").Document(), each.Lookup("u").Document()
		id, _ := bounds(query)
		selects, err := parseFilter(query)
		if err != nil {
			return nil, err
		}
		if id == nil {
			return nil, fmt.Errorf("an update without an _id")
		}
		spin(time.Now(), s.costs.Update)
		d := c.find(*id)
		if d == nil {
			if upsert, _ := each.Lookup("upsert").BooleanOK(); upsert {
				if err := c.upsert(*id, change); err != nil {
					return nil, err
				}
				matched++
				upserted = append(upserted, bson.D{{Key: "index", Value: i}, {Key: "_id", Value: *id}})
			}
			continue
		}
		applied, keys, err := c.update(d, selects, change)
		if err != nil {
			return nil, err
		}
		spin(time.Now(), time.Duration(keys)*s.costs.Key)
		if applied {
			matched++
		}
	}
	answer := bson.D{{Key: "n", Value: matched}, {Key: "nModified", Value: matched - len(upserted)}}
	if len(upserted) > 0 {
		answer = append(answer, bson.E{Key: "upserted", Value: upserted})
	}
	return answer, s.log.commit(make([]byte, 64*len(list)))
}

// upsert inserts the document that an update of a missing one makes.
func (c *collection) upsert(id bson.RawValue, update bson.Raw) error {
	data := encode(bson.D{{Key: "_id", Value: id}})
	insert, err := update.LookupErr("$setOnInsert")
	if err == nil {
		update = encode(bson.D{{Key: "$set", Value: insert}})
	}
	if data, err = change(data, update); err != nil {
		return err
	}
	return c.insert([]bson.Raw{data})
}

func (s *Server) find(m *message) (bson.D, error) {
	filter, _ := m.command.Lookup("filter").DocumentOK()
	selects, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	c := &cursor{namespace: s.namespaceOf(m, "find"), selects: selects, limit: m.integer("limit", 0)}
	if projection, ok := m.command.Lookup("projection").DocumentOK(); ok {
		c.project = make(map[string]bool)
		elements, err := projection.Elements()
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			c.project[e.Key()] = true
		}
		c.project["_id"] = true
		if len(elements) == 0 {
			c.project = nil
		}
	}
	if err := s.open(c, m, filter); err != nil {
		return nil, err
	}
	if skip := m.integer("skip", 0); skip > 0 {
		begun := time.Now()
		spin(begun, time.Duration(c.skip(skip))*s.costs.Key)
	}
	batch, more := c.batch(m.integer("batchSize", firstBatch), s.costs)
	if !more || m.command.Lookup("singleBatch").Type == bson.TypeBoolean {
		return firstOf(c.namespace, 0, batch), nil
	}
	id := s.cursorID.Add(1)
	s.mu.Lock()
	s.cursors[id] = c
	s.mu.Unlock()
	return firstOf(c.namespace, id, batch), nil
}

// open finds out where the cursor looks for its documents, as a planner does.
func (s *Server) open(c *cursor, m *message, filter bson.Raw) (err error) {
	inCollection := s.collection(c.namespace)
	const byID, byIDBackwards = `{"_id": {"$numberInt":"1"}}`, `{"_id": {"$numberInt":"-1"}}`
	hint, order := m.command.Lookup("hint"), m.command.Lookup("sort")
	name, named := hint.StringValueOK()
	switch {
	case named && order.Type == 0:
		c.rest, c.keysOnly, err = inCollection.hinted(name, filter, c.project)
	case named || hint.Type != 0 && hint.String() != byID:
		err = fmt.Errorf("a hint must be {_id: 1}, or the name of an index without a sort, was %s", hint)
	case order.String() == byIDBackwards:
		c.rest, c.keysOnly = backwards(inCollection.byID(filter)), len(c.project) == 1 && onlyID(filter)
	case order.Type != 0 && order.String() != byID:
		var parts []keyPart
		if parts, err = parseKey(order.Document()); err == nil {
			var beginning documents
			c.rest, beginning, err = inCollection.inOrder(filter, parts)
			if beginning != nil && c.limit > 0 {
				c.rest, c.read = tried(c.rest, beginning, c.selects, c.limit, parts)
			}
		}
	default:
		c.rest, c.keysOnly = listed(inCollection.byID(filter)), len(c.project) == 1 && onlyID(filter)
	}
	if err == nil {
		c.next = c.rest()
	}
	return err
}

// onlyID reports whether a filter asks for nothing but the _id.
func onlyID(filter bson.Raw) bool {
	elements, _ := filter.Elements()
	for _, e := range elements {
		switch e.Key() {
		case "_id":
		case "$and":
			values, _ := e.Value().Array().Values()
			for _, each := range values {
				if !onlyID(each.Document()) {
					return false
				}
			}
		default:
			return false
		}
	}
	return true
}

// skip skips documents that are selected. It returns how many it walked over.
func (c *cursor) skip(n int) (walked int) {
	for ; c.next != nil && n > 0; walked++ {
		if c.selects(c.next.raw()) {
			n--
		}
		c.next = c.rest()
	}
	return walked
}

// batch returns the next batch, and whether there may be more.
func (c *cursor) batch(size int, costs Costs) (batch bson.A, more bool) {
	batch = bson.A{}
	walked, bytes := c.read, 0
	c.read = 0
	cost := costs.Document
	if c.keysOnly {
		cost = costs.Key
	}
	defer func(begun time.Time) { spin(begun, time.Duration(walked)*cost) }(time.Now())
	for c.next != nil {
		if len(batch) == size || bytes > maxBatch-(1<<20) {
			return batch, true
		}
		d := c.next.raw()
		c.next = c.rest()
		walked++
		if !c.selects(d) {
			continue
		}
		if c.project != nil {
			d = project(d, c.project)
		}
		batch, bytes = append(batch, d), bytes+len(d)
		if c.limit > 0 {
			if c.limit--; c.limit == 0 {
				return batch, false
			}
		}
	}
	return batch, false
}

func project(d bson.Raw, fields map[string]bool) bson.Raw {
	elements, _ := d.Elements()
	shown := make(bson.D, 0, len(fields))
	for _, e := range elements {
		if fields[e.Key()] {
			shown = append(shown, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	return encode(shown)
}

func (s *Server) getMore(m *message) (bson.D, error) {
	id := m.command.Lookup("getMore").Int64()
	s.mu.RLock()
	c := s.cursors[id]
	s.mu.RUnlock()
	if c == nil {
		return nil, fmt.Errorf("cursor %d is not known", id)
	}
	batch, more := c.batch(m.integer("batchSize", 1<<30), s.costs)
	if !more {
		s.mu.Lock()
		delete(s.cursors, id)
		s.mu.Unlock()
		id = 0
	}
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "nextBatch", Value: batch}, {Key: "id", Value: id}, {Key: "ns", Value: c.namespace}}}}, nil
}

// size returns how many documents a collection has, which a server knows.
func (s *Server) size(m *message) (bson.D, error) {
	if query, ok := m.command.Lookup("query").DocumentOK(); ok && len(query) > 5 {
		return nil, fmt.Errorf("a count with a query is to be an aggregation, was %s", query)
	}
	return bson.D{{Key: "n", Value: len(s.collection(s.namespaceOf(m, "count")).snapshot())}}, nil
}

// count is the aggregation by which the driver counts documents.
func (s *Server) count(m *message) (bson.D, error) {
	stages, err := m.command.Lookup("pipeline").Array().Values()
	if err != nil {
		return nil, err
	}
	if len(stages) != 2 || stages[0].Document().Lookup("$match").Type == 0 || stages[1].Document().Lookup("$group").Type == 0 {
		return nil, fmt.Errorf("the pipeline must count documents, was %s", m.command.Lookup("pipeline"))
	}
	filter := stages[0].Document().Lookup("$match").Document()
	selects, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	namespace := s.namespaceOf(m, "aggregate")
	list := s.collection(namespace).byID(filter)
	cost := s.costs.Document
	if onlyID(filter) {
		cost = s.costs.Key
	}
	n, begun := 0, time.Now()
	for _, d := range list {
		if selects(d.raw()) {
			n++
		}
	}
	spin(begun, time.Duration(len(list))*cost)
	batch := bson.A{}
	if n > 0 {
		batch = append(batch, bson.D{{Key: "_id", Value: 1}, {Key: "n", Value: n}})
	}
	return firstOf(namespace, 0, batch), nil
}
