// What identifies a database, so that workers can tell whether theirs are the same. Hosts have several names, and a name can mean
// another host elsewhere. So it is a random ID in a document of the database. A dump that is restored elsewhere has the same one.

package mongodb

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

const (
	// identityCollection is the collection of the document.
	identityCollection = "codex_jobs"
	// identityKey is the _id of the document.
	identityKey = "database"
)

// Identity tells which database it is. Make one with NewIdentity.
type Identity struct {
	db    *mongo.Database
	hosts string // of the connection string

	mu sync.Mutex
	id string // the one in the document; "" before it is known
}

// NewIdentity returns the identity of a database that was reached with the connection string.
func NewIdentity(db *mongo.Database, uri string) *Identity {
	return &Identity{db: db, hosts: hostsOf(uri)}
}

// Get returns a text that is the same for all who use the database, and for no other database. It has the database's name and
// the ID in its document, which Get adds if there is none. Where the user may not do so, the text has the hosts of the replica
// set instead, or else those of the connection string. It has no secrets. The error is one that can pass.
func (i *Identity) Get(ctx context.Context) (string, error) {
	id, err := i.document(ctx)
	switch {
	case err == nil:
		return i.db.Name() + " " + id, nil
	case ctx.Err() != nil || canPass(err):
		return "", Classify(ctx, "looking for the document that identifies the database", err)
	}
	var hello struct {
		SetName string
		Hosts   []string
	}
	err = i.db.Client().Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
	switch {
	case err != nil && (ctx.Err() != nil || canPass(err)):
		return "", Classify(ctx, "asking for the hosts of the database", err)
	case err == nil && hello.SetName != "":
		slices.Sort(hello.Hosts)
		return i.db.Name() + " at " + hello.SetName + "/" + strings.Join(hello.Hosts, ","), nil
	}
	return i.db.Name() + " at " + i.hosts, nil
}

// document returns the ID in the document. If the document is not there, because the database is new or was dropped, document
// adds it, with the ID that it had.
func (i *Identity) document(ctx context.Context) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	collection := i.db.Collection(identityCollection, options.Collection().SetReadPreference(readpref.Primary()))
	byKey := bson.D{{Key: "_id", Value: identityKey}}
	var found struct {
		ID string `bson:"id"`
	}
	err := collection.FindOne(ctx, byKey).Decode(&found)
	if errors.Is(err, mongo.ErrNoDocuments) {
		found.ID = i.id
		if found.ID == "" {
			found.ID = rand.Text()
		}
		_, err = collection.InsertOne(ctx, append(byKey, bson.E{Key: "id", Value: found.ID}))
		if mongo.IsDuplicateKeyError(err) { // another worker was faster
			err = collection.FindOne(ctx, byKey).Decode(&found)
		}
	}
	if err == nil {
		i.id = found.ID
	}
	return found.ID, err
}

// hostsOf returns the hosts of a connection string, sorted.
func hostsOf(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	hosts := strings.Split(strings.ToLower(rest), ",")
	slices.Sort(hosts)
	return strings.Join(hosts, ",")
}
