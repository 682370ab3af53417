// What a store reads and writes, without a server: for the tests of a team's own code.

package mongodb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// NewRecord returns a document, which must have an _id, as a Store with the configuration would read it: with the fields that the
// configuration names, and no others.
func NewRecord(c Config, document any) (syncrun.Record, error) {
	data, err := bson.Marshal(document)
	if err != nil {
		return syncrun.Record{}, fmt.Errorf("encoding the document: %w", err)
	}
	c = c.withDefaults()
	doc := bson.Raw(data)
	id, err := doc.LookupErr("_id")
	if err != nil {
		return syncrun.Record{}, errors.New("the document has no _id")
	}
	k := newKey(id)
	r := syncrun.Record{Key: k, ID: k}
	if c.NameField != "" && c.Fields != nil {
		r.Name, _ = doc.Lookup(strings.Split(c.NameField, ".")...).StringValueOK()
	}
	switch {
	case c.allFields():
		r.Data = doc
	case c.Fields != nil:
		var paths []string
		for _, e := range c.projection(false) {
			paths = append(paths, e.Key)
		}
		r.Data, err = project(doc, paths, "")
	}
	return r, err
}

// project returns what a server's projection leaves of a document: the fields whose paths are given, those within them, and those
// around them. Prefix is the path of the document itself.
func project(doc bson.Raw, paths []string, prefix string) (bson.Raw, error) {
	elements, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	var left bson.D
	for _, e := range elements {
		path := prefix + e.Key()
		switch v := e.Value(); {
		case slices.Contains(paths, path):
			left = append(left, bson.E{Key: e.Key(), Value: v})
		case !slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, path+".") }):
		case v.Type == bson.TypeEmbeddedDocument:
			within, err := project(v.Document(), paths, path+".")
			if err != nil {
				return nil, err
			}
			left = append(left, bson.E{Key: e.Key(), Value: within})
		case v.Type == bson.TypeArray: // a projection looks into the documents of an array
			within, err := projectAll(v.Array(), paths, path+".")
			if err != nil {
				return nil, err
			}
			left = append(left, bson.E{Key: e.Key(), Value: within})
		}
	}
	if left == nil {
		left = bson.D{}
	}
	return bson.Marshal(left)
}

func projectAll(array bson.RawArray, paths []string, prefix string) (bson.A, error) {
	values, err := array.Values()
	if err != nil {
		return nil, err
	}
	left := bson.A{}
	for _, v := range values {
		if v.Type != bson.TypeEmbeddedDocument {
			continue
		}
		within, err := project(v.Document(), paths, prefix)
		if err != nil {
			return nil, err
		}
		left = append(left, within)
	}
	return left, nil
}

// CheckUpdate returns why a Store with the configuration could not set and unset the fields of a record, or nil.
func (c Config) CheckUpdate(set map[string]any, unset []string) error {
	c = c.withDefaults()
	s := &stamps{synced: stampField(c.SyncedField), updated: c.UpdatedField}
	_, err := s.change(syncrun.Update{Set: set, Unset: unset})
	return err
}
