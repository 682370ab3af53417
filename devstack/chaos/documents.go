// The records that are synchronised: a few of each collection. They are loaded and checked without a proxy.

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/demo/users"
	"github.com/codex-api/codex-jobs/internal/codex"
)

const (
	// loadTimeout bounds loading and reading a collection.
	loadTimeout = time.Minute
	// dropTimeout bounds the cleanup, which must be quick after a Ctrl-C.
	dropTimeout = 5 * time.Second
)

// collections are the collections of the job types. A full sync splits the users into four ranges and the projects into two,
// and does not split the issues.
var collections = []collection{
	{codex.UserSync.Name, "users", 200}, {codex.ProjectSync.Name, "projects", 60}, {codex.IssueSync.Name, "issues", 40},
}

// rangeSize is SYNC_RANGE_SIZE.
const rangeSize = 50

type collection struct {
	job, name string
	count     int
}

// documents are the records of all collections, in a database of their own.
type documents struct {
	client *mongo.Client
	db     *mongo.Database
	seed   uint64
}

func connectMongoDB(uri, database string, seed uint64) (*documents, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetServerSelectionTimeout(questionTimeout))
	if err != nil {
		return nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	return &documents{client, client.Database(database + "_chaos_" + strings.ToLower(rand.Text()[:8])), seed}, nil
}

// load inserts all documents.
func (d *documents) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	for _, c := range collections {
		// All are untidy users: a synchronisation looks at _id and lastSynced only.
		if _, err := d.db.Collection(c.name).InsertMany(ctx, users.Generate(c.count, d.seed)); err != nil {
			return fmt.Errorf("loading the %s: %w", c.name, err)
		}
	}
	return nil
}

// stamps returns the lastSynced of each document of the collection, by its _id; the zero time for one that has no date.
func (d *documents) stamps(ctx context.Context, c collection) (map[string]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	found, err := d.db.Collection(c.name).Find(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", c.name, err)
	}
	var docs []bson.Raw
	if err := found.All(ctx, &docs); err != nil {
		return nil, fmt.Errorf("reading the %s: %w", c.name, err)
	}
	stamps := make(map[string]time.Time, len(docs))
	for _, doc := range docs {
		stamp, _ := doc.Lookup("lastSynced").TimeOK()
		stamps[doc.Lookup("_id").String()] = stamp
	}
	return stamps, nil
}

// stampSome stamps some documents of the collection with the time.
func (d *documents) stampSome(ctx context.Context, c collection, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	for range 5 {
		_, err := d.db.Collection(c.name).UpdateOne(ctx, bson.D{{Key: "lastSynced", Value: bson.D{{Key: "$lt", Value: at}}}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "lastSynced", Value: at}}}})
		if err != nil {
			return fmt.Errorf("stamping some %s: %w", c.name, err)
		}
	}
	return nil
}

// close drops the database.
func (d *documents) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	if err := d.db.Drop(ctx); err != nil {
		return errors.Join(fmt.Errorf("dropping MongoDB's database %s: %w", d.db.Name(), err), d.client.Disconnect(ctx))
	}
	return d.client.Disconnect(ctx)
}

// behind returns the connection string with another address for the server, and that address itself.
func behind(uri, address string) (changed, server string, err error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "mongodb" || u.Port() == "" || strings.Contains(u.Host, ",") {
		return "", "", errors.New("MONGODB_URI cannot be put behind a proxy: it must be mongodb:// with one host and a port")
	}
	server, u.Host = u.Host, address
	query := u.Query()
	query.Set("directConnection", "true") // servers tell their own addresses
	u.RawQuery = query.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), server, nil
}
