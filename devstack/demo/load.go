package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/codex-api/codex-jobs/devstack/demo/users"
)

const (
	userCount = 2000
	// fewUsers is how many there are for an endpoint that is not the demo's: the embedded MongoDB looks at all users for each one
	// that gets a field.
	fewUsers     = 200
	projectCount = 40
	issueCount   = 60
	dataSeed     = 20
	loadBatch    = 100
	// loadTimeout bounds loading as a whole.
	loadTimeout = 2 * time.Minute
)

// load fills the collections that are empty, and returns how many users it has loaded.
func load(ctx context.Context, uri, database string, userCount int) (loaded int, err error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return 0, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }() // only closes sockets
	db := client.Database(database)
	loaded, err = fill(ctx, db.Collection("users"), users.Generate(userCount, dataSeed))
	if err != nil {
		return 0, err
	}
	if _, err := fill(ctx, db.Collection("projects"), records("project", projectCount)); err != nil {
		return 0, err
	}
	if _, err := fill(ctx, db.Collection("issues"), records("issue", issueCount)); err != nil {
		return 0, err
	}
	return loaded, nil
}

// fill inserts the documents unless the collection has some already.
func fill(ctx context.Context, coll *mongo.Collection, docs []bson.D) (int, error) {
	switch err := coll.FindOne(ctx, bson.D{}).Err(); {
	case err == nil:
		return 0, nil
	case !errors.Is(err, mongo.ErrNoDocuments):
		return 0, fmt.Errorf("looking into collection %s: %w", coll.Name(), err)
	}
	for start := 0; start < len(docs); start += loadBatch {
		if _, err := coll.InsertMany(ctx, docs[start:min(start+loadBatch, len(docs))]); err != nil {
			return start, fmt.Errorf("loading collection %s: %w", coll.Name(), err)
		}
	}
	return len(docs), nil
}

// nameField is the field that names a record.
var nameField = map[string]string{"project": "name", "issue": "title"}

// records returns n simple documents, for the collections besides the users.
func records(kind string, n int) []bson.D {
	random := rand.New(rand.NewPCG(dataSeed, uint64(n)))
	day := time.Date(2025, time.May, 1, 8, 0, 0, 0, time.UTC)
	docs := make([]bson.D, n)
	for i := range docs {
		created := day.AddDate(0, 0, random.IntN(200))
		var id bson.ObjectID
		binary.BigEndian.PutUint32(id[:], uint32(created.Unix()))
		binary.BigEndian.PutUint32(id[8:], uint32(i))
		docs[i] = bson.D{
			{Key: "_id", Value: id},
			{Key: nameField[kind], Value: fmt.Sprintf("Demo %s %d", kind, i+1)},
			{Key: "createdAt", Value: created},
			{Key: "updatedAt", Value: created},
		}
		if i%3 == 0 {
			docs[i] = append(docs[i], bson.E{Key: "lastSynced", Value: created.AddDate(0, 1, 0)})
		}
	}
	return docs
}
