// Updates of records. A writer can be held up between reading and writing, and write long after a later run. So no update
// here sets a record back, whichever of the two writes first.

package mongodb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	// maxCommand bounds a command of several updates, in bytes. The server takes about 16 MiB.
	maxCommand = 12 << 20
	// maxUpdate bounds a single update. With the rest of its command it is what the server takes.
	maxUpdate = 16 << 20
)

// stamps makes updates that stamp records with one reference time. Most updates are one of two, which are encoded once, without
// the driver's encoder: there are stamps for each batch.
type stamps struct {
	reference, latest time.Time
	synced            stampField
	updated           string
	raise, replace    bson.Raw
	unlessLater       []byte // noValidStamp as an element; nil until it is needed
}

func (s *Store) newStamps(sel syncrun.Selection) *stamps {
	made := &stamps{reference: sel.Reference, latest: sel.Latest(), synced: stampField(s.SyncedField), updated: s.UpdatedField}
	stamp := bsoncore.AppendDateTimeElement(nil, s.SyncedField, int64(date(made.reference)))
	touch := bsoncore.AppendBooleanElement(nil, s.UpdatedField, true)
	encode := func(operator string) bson.Raw {
		fields := bsoncore.BuildDocumentElement(nil, operator, stamp)
		return bson.Raw(bsoncore.BuildDocument(nil, bsoncore.BuildDocumentElement(fields, touched, touch)))
	}
	made.raise, made.replace = encode("$max"), encode("$set")
	return made
}

// appendUnlessLater appends the condition that no later run has stamped the record.
func (s *stamps) appendUnlessLater(b []byte) ([]byte, error) {
	if s.unlessLater == nil {
		encoded, err := bson.Marshal(bson.D{s.synced.noValidStamp(s.reference, s.latest)})
		if err != nil {
			return nil, err
		}
		s.unlessLater = encoded[4 : len(encoded)-1] // without its length and its end
	}
	return append(b, s.unlessLater...), nil
}

// touched is the operator that makes the server set a field to its time.
const touched = "$currentDate"

// touch makes the server set the time of the update.
func (s *stamps) touch() bson.E {
	return bson.E{Key: touched, Value: bson.D{{Key: s.updated, Value: true}}}
}

// command is one command of updates, and what became of those that it was made of.
type command struct {
	encoded bson.Raw
	took    int               // how many updates it is made of
	sent    []*syncrun.Record // the record of each update in it
	failed  []syncrun.Failure // records that cannot be updated
}

// newCommand returns a command of the first updates. It writes BSON itself: the driver's bulk write would encode each update by
// reflection, and so take more of the processor than all the rest of a sync.
func (s *Store) newCommand(stamps *stamps, updates []syncrun.Update) (command, error) {
	c := command{sent: make([]*syncrun.Record, 0, min(len(updates), s.BulkSize))}
	start, b := bsoncore.AppendDocumentStart(make([]byte, 0, 256+cap(c.sent)*(len(stamps.raise)+48)))
	b = bsoncore.AppendStringElement(b, "update", s.Collection)
	b = bsoncore.AppendBooleanElement(b, "ordered", false)
	b = bsoncore.AppendDocumentElement(b, "writeConcern", s.writes)
	list, b := bsoncore.AppendArrayElementStart(b, "updates")
	for i := range updates {
		if len(c.sent) == s.BulkSize {
			break
		}
		before := len(b)
		after, err := stamps.append(b, strconv.Itoa(len(c.sent)), &updates[i])
		if err == nil && len(after) > maxCommand && len(c.sent) > 0 {
			break // it begins the next command
		}
		if size := len(after) - before; err == nil && size > maxUpdate {
			err = fmt.Errorf("the update has %d bytes, and MongoDB takes at most %d", size, maxUpdate)
		}
		c.took++
		if err != nil {
			b = b[:before]
			c.failed = append(c.failed, syncrun.Failure{Record: updates[i].Record, Err: err})
			continue
		}
		b, c.sent = after, append(c.sent, &updates[i].Record)
	}
	var err error
	if b, err = bsoncore.AppendArrayEnd(b, list); err == nil {
		b, err = bsoncore.AppendDocumentEnd(b, start)
	}
	c.encoded = b
	return c, err
}

// append appends the update of one record to the list of a command, or returns an error that says why the record cannot be updated.
//
// $max keeps the stamp of a later run. It would also keep some values that are no valid stamp. Such a value is replaced with
// $set, unless the record has a valid stamp by now. Beside $max other fields would change even if a later run has stamped the
// record. So an update of other fields only applies to a record that no later run has stamped.
func (s *stamps) append(b []byte, place string, u *syncrun.Update) ([]byte, error) {
	change, unlessLater := s.raise, false
	if replaced, _ := u.Record.State.(bool); replaced {
		change, unlessLater = s.replace, true
	}
	if len(u.Set) > 0 || len(u.Unset) > 0 {
		var err error
		if change, err = s.change(*u); err != nil {
			return nil, err
		}
		unlessLater = true
	}
	update, b := bsoncore.AppendDocumentElementStart(b, place)
	query, b := bsoncore.AppendDocumentElementStart(b, "q")
	id := bsoncore.Value{Type: bsoncore.Type(u.Record.Key[0]), Data: u.Record.Key[1:]}
	if id.Type == bsoncore.TypeEmbeddedDocument { // it can begin with "$ref", which is no operator
		b = bsoncore.BuildDocumentElement(b, "_id", bsoncore.AppendValueElement(nil, "$eq", id))
	} else {
		b = bsoncore.AppendValueElement(b, "_id", id)
	}
	var err error
	if unlessLater {
		if b, err = s.appendUnlessLater(b); err != nil {
			return nil, err
		}
	}
	b, err = bsoncore.AppendDocumentEnd(b, query)
	if err != nil {
		return nil, err
	}
	b = bsoncore.AppendDocumentElement(b, "u", change)
	return bsoncore.AppendDocumentEnd(b, update)
}

// change returns the update that sets and removes fields together with the stamp. It checks and encodes them here, so that the
// reason is clear, and because the driver would refuse a whole command for one value that does not encode.
func (s *stamps) change(u syncrun.Update) (bson.Raw, error) {
	names := slices.Sorted(maps.Keys(u.Set))
	removed := slices.Compact(slices.Sorted(slices.Values(u.Unset)))
	set := s.synced.is(date(s.reference))
	for _, name := range names {
		if err := s.checkName(name, names, removed); err != nil {
			return nil, fmt.Errorf("setting field %q: %w", name, err)
		}
		set = append(set, bson.E{Key: name, Value: u.Set[name]})
	}
	change := bson.D{{Key: "$set", Value: set}}
	var unset bson.D
	for _, name := range removed {
		if err := s.checkName(name, names, removed); err != nil {
			return nil, fmt.Errorf("removing field %q: %w", name, err)
		}
		unset = append(unset, bson.E{Key: name, Value: ""})
	}
	if len(unset) > 0 { // servers before MongoDB 5.0 refuse an operator without fields
		change = append(change, bson.E{Key: "$unset", Value: unset})
	}
	encoded, err := bson.Marshal(append(change, s.touch()))
	if err != nil {
		return nil, fmt.Errorf("setting fields: %w", err)
	}
	return encoded, nil
}

// checkName returns an error if an update must not change the field, or the path of a field. set and removed are all fields that
// the update changes, sorted.
func (s *stamps) checkName(name string, set, removed []string) error {
	switch field, _, _ := strings.Cut(name, "."); {
	case field == "_id":
		return errors.New("the _id of a record must not change")
	case field == string(s.synced) || field == s.updated:
		return errors.New("only the sync itself changes it")
	case name == "":
		return errors.New("the name must not be empty")
	case strings.HasPrefix(name, "$") || strings.Contains(name, ".$"):
		return errors.New("no part of the name must begin with $, as operators do")
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return errors.New("the path must have no empty part")
	case strings.Contains(name, "\x00"):
		return errors.New("the name must have no zero byte")
	}
	among := func(names []string, name string) bool {
		_, found := slices.BinarySearch(names, name)
		return found
	}
	if among(set, name) && among(removed, name) {
		return errors.New("it is set and removed at once")
	}
	for i := range len(name) {
		if outer := name[:i]; name[i] == '.' && (among(set, outer) || among(removed, outer)) {
			return fmt.Errorf("%q, which it is part of, is set or removed at once", outer)
		}
	}
	return nil
}
