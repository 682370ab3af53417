package mongodb

import (
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  Config
		want []string // in the error, line by line
	}{
		"the defaults": {Config{}, nil},
		"all of it": {
			Config{NameField: "profile.name", Fields: []string{"a", "a.b", "a", "_id", "c.0.d", "e$"}, SyncedField: "s", UpdatedField: "u"}, nil,
		},
		"names exchanged":      {Config{SyncedField: DefaultUpdatedField, UpdatedField: DefaultSyncedField}, nil},
		"a filter":             {Config{Filter: bson.D{{Key: "a", Value: bson.D{{Key: "$in", Value: bson.A{1, "where"}}}}}}, nil},
		"an empty filter":      {Config{Filter: bson.D{}}, nil},
		"no collection":        {Config{Collection: "\x00"}, []string{"Collection"}},
		"an operator as one":   {Config{Collection: "$cmd"}, []string{"Collection"}},
		"one field for both":   {Config{SyncedField: "at", UpdatedField: "at"}, []string{"different"}},
		"the other's default":  {Config{SyncedField: DefaultUpdatedField}, []string{"different"}},
		"this one's default":   {Config{UpdatedField: DefaultSyncedField}, []string{"different"}},
		"a stamp as _id":       {Config{SyncedField: "_id"}, []string{"SyncedField"}},
		"an update as _id":     {Config{UpdatedField: "_id"}, []string{"UpdatedField"}},
		"a stamp with $":       {Config{SyncedField: "$at"}, []string{"SyncedField"}},
		"an update with a dot": {Config{UpdatedField: "meta.at"}, []string{"UpdatedField"}},
		"a stamp with a zero":  {Config{SyncedField: "a\x00t"}, []string{"SyncedField"}},
		"all wrong": {
			Config{SyncedField: "a.b", UpdatedField: "$u", NameField: "n."}, []string{"SyncedField", "UpdatedField", "NameField"},
		},
		"a name with $":      {Config{NameField: "$name"}, []string{"NameField"}},
		"an empty path":      {Config{Fields: []string{"a", ""}}, []string{"Fields"}},
		"empty parts":        {Config{Fields: []string{".a", "a.", "a..b"}}, []string{"Fields", "Fields", "Fields"}},
		"operators":          {Config{Fields: []string{"$a", "a.$", "a.$.b"}}, []string{"Fields", "Fields", "Fields"}},
		"all and one":        {Config{Fields: []string{"a", AllFields}}, []string{`Fields must be "*" alone`}},
		"a zero byte":        {Config{Fields: []string{"a\x00"}}, []string{"Fields"}},
		"no BSON":            {Config{Filter: bson.D{{Key: "a", Value: make(chan int)}}}, []string{"Filter must encode"}},
		"a zero in a filter": {Config{Filter: bson.D{{Key: "a\x00", Value: 1}}}, []string{"Filter must encode"}},
		"code":               {Config{Filter: bson.D{{Key: "$where", Value: "true"}}}, []string{"$where"}},
		"a search": {
			Config{Filter: bson.D{{Key: "$and", Value: bson.A{bson.D{{Key: "$text", Value: bson.D{}}}}}}}, []string{"$text"},
		},
		"a distance": {
			Config{Filter: bson.D{{Key: "at", Value: bson.D{{Key: "$near", Value: bson.A{1, 2}}}}}}, []string{"$near"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.cfg.Collection == "" {
				test.cfg.Collection = "users"
			}
			var got []string
			if err := test.cfg.Validate(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if !slices.EqualFunc(got, test.want, strings.Contains) {
				t.Errorf("the errors are %q, want %q", got, test.want)
			}
		})
	}
	if err := (Config{}).Validate(); err == nil {
		t.Error("takes a store without a collection")
	}
}

// TestProjection checks that no path is there twice, or within another one: the server would refuse each read.
func TestProjection(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg   Config
		want  []string
		named bool
	}{
		"nothing":                                {Config{}, []string{"_id", "lastSynced"}, false},
		"a name":                                 {Config{NameField: "username", Fields: []string{}}, []string{"_id", "lastSynced", "username"}, false},
		"a name of records that nobody looks at": {Config{NameField: "username"}, []string{"_id", "lastSynced"}, false},
		"a name that is asked for":               {Config{NameField: "username"}, []string{"_id", "lastSynced", "username"}, true},
		"other fields": {
			Config{NameField: "n", SyncedField: "s", Fields: []string{"b", "a.c"}}, []string{"_id", "s", "n", "b", "a.c"}, false,
		},
		"twice":                {Config{Fields: []string{"a", "b.c", "a", "b.c"}}, []string{"_id", "lastSynced", "a", "b.c"}, false},
		"the longer one first": {Config{Fields: []string{"a.b", "a.b.c", "a"}}, []string{"_id", "lastSynced", "a"}, false},
		"the shorter one first": {
			Config{Fields: []string{"a.b", "a-b", "ab", "a.b.c", "a.bc"}}, []string{"_id", "lastSynced", "a.b", "a-b", "ab", "a.bc"}, false,
		},
		"the name":        {Config{NameField: "n", Fields: []string{"n", "n.first"}}, []string{"_id", "lastSynced", "n"}, false},
		"around the name": {Config{NameField: "n.first", Fields: []string{"n"}}, []string{"_id", "lastSynced", "n"}, false},
		"beside the name": {
			Config{NameField: "n.first", Fields: []string{"n.last"}}, []string{"_id", "lastSynced", "n.first", "n.last"}, false,
		},
		"the stamp":           {Config{Fields: []string{"lastSynced", "lastSynced.x"}}, []string{"_id", "lastSynced"}, false},
		"the stamp as name":   {Config{NameField: "at", SyncedField: "at"}, []string{"_id", "at"}, false},
		"the _id":             {Config{NameField: "_id", Fields: []string{"_id", "_id.x"}}, []string{"_id", "lastSynced"}, false},
		"a part of the _id":   {Config{Fields: []string{"_id.x", "_idx"}}, []string{"_id", "lastSynced", "_idx"}, false},
		"the time of updates": {Config{Fields: []string{"updatedAt"}}, []string{"_id", "lastSynced", "updatedAt"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, e := range test.cfg.withDefaults().projection(test.named) {
				if e.Value != 1 {
					t.Errorf("%s: %v", e.Key, e.Value)
				}
				got = append(got, e.Key)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("asks for %q, want %q", got, test.want)
			}
		})
	}
}
