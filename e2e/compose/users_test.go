//go:build compose

package compose_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Fields that a sync sets.
const (
	lastSynced = "lastSynced"
	updatedAt  = "updatedAt"
)

// mongoDialer connects to the project's MongoDB, which is not published.
type mongoDialer struct{ *project }

// DialContext implements options.ContextDialer.
func (d mongoDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return d.dial(ctx, "mongo", "27017")
}

// users returns the collection of the users.
func (p *project) users(t *testing.T) *mongo.Collection {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://mongo/?directConnection=true&maxPoolSize=1").SetDialer(mongoDialer{p}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client.Database("codex").Collection("users")
}

// messyUsers makes users like those of a database that several programs have written to.
func messyUsers(n int) []bson.D {
	now := time.Now().Truncate(time.Millisecond)
	stamps := []any{
		nil, now.Format(time.RFC3339), now.UnixMilli(), time.Unix(0, 0), now.AddDate(30, 0, 0), "", 17.25, true, now.Add(-time.Hour),
	}
	names := []any{nil, "Zoë \"\n O'Neil", "", int32(7), strings.Repeat("long", 100)}
	users := make([]bson.D, n)
	for i := range users {
		var user bson.D
		add := func(name string, value any) { user = append(user, bson.E{Key: name, Value: value}) }
		switch { // few numbers: some servers read all users to find one
		case i%100 == 6:
			add("_id", int32(i))
		case i%100 == 9:
			add("_id", int64(i)<<33)
		case i%10 == 3:
			add("_id", fmt.Sprintf("import/%04d", n-i))
		default:
			add("_id", bson.NewObjectID())
		}
		switch i % 7 {
		case 1:
			add("username", names[i%len(names)])
		case 2: // none
		default:
			add("username", "user."+strconv.Itoa(i))
		}
		if i%(len(stamps)+1) > 0 {
			add(lastSynced, stamps[i%(len(stamps)+1)-1])
		}
		switch i % 4 { // 0: none
		case 1:
			add(updatedAt, now.Add(-time.Duration(i)*time.Hour))
		case 2:
			add(updatedAt, "unknown")
		case 3:
			add("profile", bson.D{
				{Key: "bio", Value: strings.Repeat("a line of text ", i%40)}, {Key: "seen", Value: bson.A{int32(1), "two", nil, now}},
			})
		}
		add("tags", bson.A{"a", int64(i)})
		users[i] = user
	}
	return users
}

// insert adds the users.
func insert(t *testing.T, collection *mongo.Collection, users []bson.D) {
	t.Helper()
	for len(users) > 0 {
		n := min(len(users), 100)
		if _, err := collection.InsertMany(t.Context(), users[:n]); err != nil {
			t.Fatal(err)
		}
		users = users[n:]
	}
}

// snapshot returns all users as the server has them, by _id.
func snapshot(t *testing.T, collection *mongo.Collection) map[string]bson.Raw {
	t.Helper()
	cursor, err := collection.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []bson.Raw
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	users := make(map[string]bson.Raw, len(all))
	for _, user := range all {
		users[user.Lookup("_id").String()] = user
	}
	return users
}

// wantStamped checks that every user has a reference time from the first one on, was updated since, and is otherwise as
// before.
func wantStamped(t *testing.T, collection *mongo.Collection, before map[string]bson.Raw, reference time.Time) {
	t.Helper()
	after := snapshot(t, collection)
	if len(after) != len(before) {
		t.Errorf("%d users, want %d", len(after), len(before))
	}
	wrong := 0
	report := func(format string, args ...any) {
		if wrong++; wrong > 5 {
			t.Fatal("and so on")
		}
		t.Errorf(format, args...)
	}
	now := time.Now().Add(time.Second)
	for id, user := range after {
		if stamp, ok := user.Lookup(lastSynced).TimeOK(); !ok || stamp.Before(reference) || stamp.After(now) {
			report("%s: lastSynced is %v, want %s or later", id, user.Lookup(lastSynced), reference)
		}
		if updated, ok := user.Lookup(updatedAt).TimeOK(); !ok || updated.Before(reference) || updated.After(now) {
			report("%s: updatedAt is %v, want a date after %s", id, user.Lookup(updatedAt), reference)
		}
		if !bytes.Equal(otherFields(t, user), otherFields(t, before[id])) {
			report("%s has changed: %s, was %s", id, user, before[id])
		}
	}
}

// otherFields returns the bytes of the fields that a sync must not touch, in their order.
func otherFields(t *testing.T, user bson.Raw) []byte {
	t.Helper()
	elements, err := user.Elements()
	if err != nil {
		t.Fatal(err)
	}
	var others []byte
	for _, e := range elements {
		if e.Key() != lastSynced && e.Key() != updatedAt {
			others = append(others, e...)
		}
	}
	return others
}
