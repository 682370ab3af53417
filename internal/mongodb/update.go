// Updates of records. A writer can be held up between reading and writing, and write long after a later run. So no update
// here sets a record back, whichever of the two writes first.

package mongodb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// stamps makes updates that stamp records with one reference time. Most updates are one of two, which are encoded once.
type stamps struct {
	reference, latest time.Time
	synced            stampField
	updated           string
	raise, replace    bson.Raw
}

func (s *Store) newStamps(sel syncrun.Selection) (stamps, error) {
	made := stamps{reference: sel.Reference, latest: sel.Latest(), synced: stampField(s.SyncedField), updated: s.UpdatedField}
	stamp := made.synced.is(date(made.reference))
	var err error
	if made.raise, err = bson.Marshal(bson.D{{Key: "$max", Value: stamp}, made.touch()}); err != nil {
		return stamps{}, err
	}
	made.replace, err = bson.Marshal(bson.D{{Key: "$set", Value: stamp}, made.touch()})
	return made, err
}

// touch makes the server set the time of the update.
func (s stamps) touch() bson.E {
	return bson.E{Key: "$currentDate", Value: bson.D{{Key: s.updated, Value: true}}}
}

// update returns the update of one record, or an error that says why it cannot be updated.
//
// $max keeps the stamp of a later run. It would also keep some values that are no valid stamp. Such a value is replaced with
// $set, unless the record has a valid stamp by now. Beside $max other fields would change even if a later run has stamped the
// record. So an update of other fields only applies to a record that no later run has stamped.
func (s stamps) update(u syncrun.Update) (mongo.WriteModel, error) {
	v := key(u.Record.Key).value()
	filter := bson.D{{Key: "_id", Value: v}}
	if v.Type == bson.TypeEmbeddedDocument { // it can begin with "$ref", which is no operator
		filter = id("$eq", v)
	}
	model := mongo.NewUpdateOneModel()
	if len(u.Set) > 0 || len(u.Unset) > 0 {
		change, err := s.change(u)
		if err != nil {
			return nil, err
		}
		return model.SetFilter(append(filter, s.synced.noValidStamp(s.reference, s.latest))).SetUpdate(change), nil
	}
	if replaced, _ := u.Record.State.(bool); replaced {
		return model.SetFilter(append(filter, s.synced.noValidStamp(s.reference, s.latest))).SetUpdate(s.replace), nil
	}
	return model.SetFilter(filter).SetUpdate(s.raise), nil
}

// change returns the update that sets and removes fields together with the stamp. It checks and encodes them here, so that the
// reason is clear, and because the driver would refuse a whole command for one value that does not encode.
func (s stamps) change(u syncrun.Update) (bson.Raw, error) {
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
func (s stamps) checkName(name string, set, removed []string) error {
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
