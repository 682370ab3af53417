// The names of a few records, for people who read which ones failed.

package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

var _ syncrun.Namer = (*Store)(nil)

// Names implements syncrun.Namer, with one command. Without a NameField it asks for nothing.
func (s *Store) Names(ctx context.Context, keys [][]byte) (map[string]string, error) {
	const naming = "reading names of"
	names := make(map[string]string)
	if len(s.namePath) == 0 || len(keys) == 0 {
		return names, nil
	}
	var ids bson.A
	for _, k := range keys {
		parsed, err := parseKey(k)
		if err != nil {
			return nil, s.fail(ctx, naming, err)
		}
		ids = append(ids, parsed.value())
	}
	bounded, cancel := context.WithTimeout(ctx, s.ReadTimeout)
	defer cancel()
	opts := options.Find().SetHint(byID).SetBatchSize(int32(len(ids))).
		SetProjection(bson.D{{Key: s.NameField, Value: 1}})
	found, err := s.collection.Find(bounded, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}}, opts)
	if err != nil {
		return nil, s.fail(ctx, naming, err)
	}
	var docs []bson.Raw
	if err := found.All(bounded, &docs); err != nil {
		return nil, s.fail(ctx, naming, err)
	}
	for _, doc := range docs {
		if name := s.name(doc); name != "" {
			names[string(newKey(doc.Lookup("_id")))] = name
		}
	}
	return names, nil
}

// name returns the name of a document, or "".
func (s *Store) name(doc bson.Raw) string {
	if len(s.namePath) == 0 {
		return ""
	}
	name, _ := doc.Lookup(s.namePath...).StringValueOK()
	return name
}
