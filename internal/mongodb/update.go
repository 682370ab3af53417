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

// Whoever is held up between reading and writing may write long after a later run. Every update here is such that it
// then sets nothing back, whatever the order in which the two get to the server.

// touch has the server set the time of the update.
var touch = bson.E{Key: "$currentDate", Value: bson.D{{Key: updatedAt, Value: true}}}

// stamps makes updates that stamp records with one reference. What most of them have in common is prepared.
type stamps struct {
	reference      time.Time
	raise, replace bson.Raw
}

func newStamps(reference time.Time) (stamps, error) {
	raise, err := bson.Marshal(bson.D{{Key: "$max", Value: stamp(date(reference))}, touch})
	if err != nil {
		return stamps{}, err
	}
	replace, err := bson.Marshal(bson.D{{Key: "$set", Value: stamp(date(reference))}, touch})
	return stamps{reference: reference, raise: raise, replace: replace}, err
}

// update returns the update of one record, or why there can be none.
//
// $max leaves a later run's stamp where it is. Where $max would keep a value that is no valid stamp, that value is
// replaced, unless the record has a valid stamp by now. As $max would not keep the other fields from being set, a record
// that gets some is left alone altogether once it has a later run's stamp.
func (s stamps) update(u syncrun.Update) (mongo.WriteModel, error) {
	v := key(u.Record.Key).value()
	filter := bson.D{{Key: "_id", Value: v}}
	if v.Type == bson.TypeEmbeddedDocument { // may begin with "$ref", which is no operator
		filter = id("$eq", v)
	}
	model := mongo.NewUpdateOneModel()
	if len(u.Set) > 0 {
		set, err := s.set(u.Set)
		if err != nil {
			return nil, err
		}
		return model.SetFilter(append(filter, noValidStamp(s.reference))).SetUpdate(set), nil
	}
	if replaced, _ := u.Record.State.(bool); replaced {
		return model.SetFilter(append(filter, noValidStamp(s.reference))).SetUpdate(s.replace), nil
	}
	return model.SetFilter(filter).SetUpdate(s.raise), nil
}

// set returns the update that sets fields together with the stamp. It is encoded here, as the driver would refuse a
// whole bulk for one value that cannot be.
func (s stamps) set(fields map[string]any) (bson.Raw, error) {
	set := stamp(date(s.reference))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("setting field %q: %w", name, err)
		}
		set = append(set, bson.E{Key: name, Value: fields[name]})
	}
	update, err := bson.Marshal(bson.D{{Key: "$set", Value: set}, touch})
	if err != nil {
		return nil, fmt.Errorf("setting fields: %w", err)
	}
	return update, nil
}

// checkName tells whether a field, or the path of one within another, may be set.
func checkName(name string) error {
	switch field, _, _ := strings.Cut(name, "."); {
	case field == "_id":
		return errors.New("a record keeps its _id")
	case field == lastSynced || field == updatedAt:
		return errors.New("only the store sets it")
	case name == "":
		return errors.New("a field has a name")
	case strings.HasPrefix(name, "$"):
		return errors.New("it begins with $, as operators do")
	}
	return nil
}
