package users

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const testSeed = 20

// fields returns the user's fields as a MongoDB server would store them.
func fields(t *testing.T, user bson.D) map[string]bson.RawValue {
	t.Helper()
	raw, err := bson.Marshal(user)
	if err != nil {
		t.Fatalf("user %v cannot be stored: %v", user, err)
	}
	elements, err := bson.Raw(raw).Elements()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]bson.RawValue{}
	for _, e := range elements {
		if _, twice := byName[e.Key()]; twice {
			t.Fatalf("user %v has field %s twice", user, e.Key())
		}
		byName[e.Key()] = e.Value()
	}
	return byName
}

func TestGenerateIsRepeatable(t *testing.T) {
	t.Parallel()
	marshal := func(seed uint64) []byte {
		data, err := bson.Marshal(bson.D{{Key: "users", Value: Generate(300, seed)}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if !bytes.Equal(marshal(testSeed), marshal(testSeed)) {
		t.Error("the same seed gave different users")
	}
	if bytes.Equal(marshal(testSeed), marshal(testSeed+1)) {
		t.Error("different seeds gave the same users")
	}
}

func TestIdentifiersAreUnique(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 5000} {
		seen := map[string]bool{}
		for _, user := range Generate(n, testSeed) {
			seen[fmt.Sprint(fields(t, user)["_id"])] = true
		}
		if len(seen) != n {
			t.Errorf("%d users have %d identifiers", n, len(seen))
		}
	}
}

// The kinds of mess that the demo must show, each in enough of 2,000 users to be noticed.
func TestEveryKindOfMessIsThere(t *testing.T) {
	t.Parallel()
	all := Generate(2000, testSeed)
	type user = map[string]bson.RawValue
	missing := func(name string) func(user) bool {
		return func(u user) bool { _, ok := u[name]; return !ok }
	}
	is := func(name string, kind bson.Type) func(user) bool {
		return func(u user) bool { v, ok := u[name]; return ok && v.Type == kind }
	}
	synced := func(ok func(time.Time) bool) func(user) bool {
		return func(u user) bool {
			v := u["lastSynced"]
			return v.Type == bson.TypeDateTime && ok(v.Time())
		}
	}
	named := func(ok func(string) bool) func(user) bool {
		return func(u user) bool {
			v := u["username"]
			return v.Type == bson.TypeString && ok(v.StringValue())
		}
	}
	for _, tt := range []struct {
		mess  string
		has   func(user) bool
		least int
		most  int
	}{
		{"an ObjectID", is("_id", bson.TypeObjectID), 1700, 1900},
		{"text as _id", is("_id", bson.TypeString), 60, 200},
		{"a 32-bit _id", is("_id", bson.TypeInt32), 30, 120},
		{"a 64-bit _id", is("_id", bson.TypeInt64), 5, 40},
		{"no lastSynced", missing("lastSynced"), 500, 750},
		{"null as lastSynced", is("lastSynced", bson.TypeNull), 60, 200},
		{"text as lastSynced", is("lastSynced", bson.TypeString), 50, 200},
		{"a 64-bit lastSynced", is("lastSynced", bson.TypeInt64), 20, 100},
		{"a 32-bit lastSynced", is("lastSynced", bson.TypeInt32), 3, 40},
		{"a floating-point lastSynced", is("lastSynced", bson.TypeDouble), 3, 40},
		{"a truth value as lastSynced", is("lastSynced", bson.TypeBoolean), 3, 40},
		{"a recent date as lastSynced", synced(func(s time.Time) bool { return s.After(epoch) && s.Before(latest) }), 900, 1300},
		{"an ancient lastSynced", synced(func(s time.Time) bool { return s.Year() == 1970 }), 5, 60},
		{"a lastSynced far in the future", synced(func(s time.Time) bool { return s.Year() > 2050 }), 5, 60},
		{"no username", missing("username"), 5, 50},
		{"null as username", is("username", bson.TypeNull), 2, 40},
		{"a username beyond ASCII", named(func(s string) bool { return strings.ContainsFunc(s, func(r rune) bool { return r > 127 }) }), 5, 60},
		{"a username with a control character", named(func(s string) bool { return strings.ContainsAny(s, "\t\n") }), 2, 30},
		{"a very long username", named(func(s string) bool { return len(s) > 255 }), 1, 30},
		{"no email", missing("email"), 50, 200},
		{"no updatedAt", missing("updatedAt"), 150, 300},
		{"roles", is("roles", bson.TypeArray), 900, 1100},
		{"a nested profile", is("profile", bson.TypeEmbeddedDocument), 150, 300},
		{"an unexpected field", func(u user) bool {
			for _, name := range []string{"__v", "legacy_flags", "last_synced", "avatar", "score"} {
				if _, ok := u[name]; ok {
					return true
				}
			}
			return false
		}, 40, 140},
	} {
		t.Run(tt.mess, func(t *testing.T) {
			t.Parallel()
			count := 0
			for _, user := range all {
				if tt.has(fields(t, user)) {
					count++
				}
			}
			if count < tt.least || count > tt.most {
				t.Errorf("%d of %d users have %s, want %d to %d", count, len(all), tt.mess, tt.least, tt.most)
			}
		})
	}
}
