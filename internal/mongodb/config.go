// What a store is made of: which collection, which of its records, and which of their fields.

package mongodb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	// DefaultSyncedField is the field with the stamp of a record.
	DefaultSyncedField = "lastSynced"
	// DefaultUpdatedField is the field with the time of a record's last update.
	DefaultUpdatedField = "updatedAt"
	// AllFields in Config.Fields means all fields of a record.
	AllFields = "*"
	// DefaultBulkSize is how many updates one command has at most. It is enough to make the round trip cheap, and little enough
	// for a command to end well within its deadline on a busy server.
	DefaultBulkSize = 1000
	// DefaultReadTimeout bounds each read. A server answers when it has found the first records. If it must walk over tens of
	// millions of records that are not selected, that takes a while. The client's monitor notices a dead server long before.
	DefaultReadTimeout = 2 * time.Minute
	// DefaultWriteTimeout bounds each command that updates records.
	DefaultWriteTimeout = 30 * time.Second
)

// Config says which records a Store has, and bounds its commands. Zero values mean the defaults. Once a Store has it, its Fields
// and its Filter must not change.
type Config struct {
	// Collection is the collection's name.
	Collection string
	// NameField is the field with the name of a record, or its path: "username", "title", "profile.name". "" means that records
	// have no name. Without Fields it is only read of records that fail, see Store.Names, unless a Selection asks for it.
	NameField string
	// Fields are the fields that the work wants to see of a record, or their paths: "email", "address.city". Unless it is nil,
	// the Data of each syncrun.Record is a bson.Raw with these fields, as far as the record has them, and with the _id, the
	// stamp and the name. AllFields alone means all that a record has. All records of the batches in flight are in memory, so name
	// no more than the work needs.
	Fields []string
	// SyncedField and UpdatedField are the fields of the two dates that a sync writes: the stamp, and the time of the update.
	SyncedField, UpdatedField string
	// Filter selects the records that take part at all, be they due or not, as in a find. nil selects all. The server still
	// walks in the index on _id, and looks at each record there. What was read is updated even if the filter no longer selects
	// it by then.
	Filter bson.D
	// BulkSize is how many updates one command has at most.
	BulkSize int
	// ReadTimeout bounds each count and each fetch of a cursor, and WriteTimeout each command that updates records.
	ReadTimeout, WriteTimeout time.Duration
}

// Validate returns an error that names all that is wrong with the configuration. It needs no database. NewStore does not call it,
// so that a definition can be checked long before its store is made.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := []error{
		validCollection(c.Collection), validDate("SyncedField", c.SyncedField), validDate("UpdatedField", c.UpdatedField),
		validFilter(c.Filter),
	}
	if c.SyncedField == c.UpdatedField {
		errs = append(errs, fmt.Errorf("the SyncedField and the UpdatedField must be different, were both %q", c.SyncedField))
	}
	if c.NameField != "" {
		errs = append(errs, validPath("NameField", c.NameField))
	}
	if c.allFields() && len(c.Fields) > 1 {
		errs = append(errs, fmt.Errorf("the Fields must be %q alone, which is all fields, or name fields, were %q", AllFields, c.Fields))
	}
	for _, path := range c.Fields {
		errs = append(errs, validPath("Fields", path))
	}
	return errors.Join(errs...)
}

// withDefaults replaces zero values.
func (c Config) withDefaults() Config {
	if c.SyncedField == "" {
		c.SyncedField = DefaultSyncedField
	}
	if c.UpdatedField == "" {
		c.UpdatedField = DefaultUpdatedField
	}
	if c.BulkSize <= 0 {
		c.BulkSize = DefaultBulkSize
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = DefaultReadTimeout
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = DefaultWriteTimeout
	}
	return c
}

func validCollection(name string) error {
	if name == "" || strings.ContainsAny(name, "$\x00") {
		return fmt.Errorf("the Collection must be a name without $ and zero bytes, was %q", name)
	}
	return nil
}

// validDate returns an error if a store cannot keep a date of its own in the field.
func validDate(setting, name string) error {
	if name == "_id" || strings.HasPrefix(name, "$") || strings.ContainsAny(name, ".\x00") {
		return fmt.Errorf("the %s must be a field other than _id, without a leading $, dots and zero bytes, was %q", setting, name)
	}
	return nil
}

// validPath returns an error if the server would not take the path in a projection.
func validPath(setting, path string) error {
	wrong := func(part string) bool { return part == "" || part[0] == '$' }
	if slices.ContainsFunc(strings.Split(path, "."), wrong) || strings.Contains(path, "\x00") {
		return fmt.Errorf("the %s must have names or dotted paths without empty parts, parts that begin with $ and zero bytes, had %q",
			setting, path)
	}
	return nil
}

// refusedOperators are what the server takes in a find, but not when it counts, or not with the hint of a cursor.
var refusedOperators = []string{"$where", "$text", "$near", "$nearSphere"}

// validFilter returns an error if the filter cannot be sent, or if the server would refuse it for sure.
func validFilter(filter bson.D) error {
	if len(filter) == 0 {
		return nil
	}
	encoded, err := bson.Marshal(filter)
	if err != nil {
		return fmt.Errorf("the Filter must encode to BSON: %w", err)
	}
	if operator := findKey(encoded, refusedOperators); operator != "" {
		return fmt.Errorf("the Filter must not use %s, which the server refuses in a count or with a hint", operator)
	}
	return nil
}

// findKey returns the first of the keys that is anywhere in the document, or "".
func findKey(doc bson.Raw, keys []string) string {
	elements, err := doc.Elements()
	if err != nil {
		return ""
	}
	for _, e := range elements {
		if slices.Contains(keys, e.Key()) {
			return e.Key()
		}
		if v := e.Value(); v.Type == bson.TypeEmbeddedDocument || v.Type == bson.TypeArray {
			if key := findKey(v.Value, keys); key != "" {
				return key
			}
		}
	}
	return ""
}

// allFields reports whether the work wants to see all fields of a record.
func (c Config) allFields() bool { return slices.Contains(c.Fields, AllFields) }

// projection returns which fields the server sends of each record. An empty one means all. The server refuses a path twice, and a
// path that is in another one. So only the shortest remain.
func (c Config) projection(named bool) bson.D {
	if c.allFields() {
		return bson.D{}
	}
	paths := []string{"_id", c.SyncedField}
	if named || c.Fields != nil {
		paths = append(paths, c.NameField)
	}
	paths = append(paths, c.Fields...)
	var kept bson.D
	for i, path := range paths {
		within := func(outer string) bool { return outer != "" && strings.HasPrefix(path, outer+".") }
		if path == "" || slices.Contains(paths[:i], path) || slices.ContainsFunc(paths, within) {
			continue
		}
		kept = append(kept, bson.E{Key: path, Value: 1})
	}
	return kept
}
