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
		"the defaults":         {Config{}, nil},
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
			Config{SyncedField: "a.b", UpdatedField: "$u"}, []string{"SyncedField", "UpdatedField"},
		},
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
