// The users that the bench synchronises. All are alike, so that only their number matters.

package main

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// chunkTimeout bounds the insertion of one chunk of users, and dropping all.
const chunkTimeout = time.Minute

// users is the collection that is synchronised.
type users struct {
	collection *mongo.Collection
	chunk      int
	progress   *progress
	present    int
}

// ensure makes the collection have n users. It adds the missing ones, and begins anew when there are too many.
func (u *users) ensure(ctx context.Context, n int) error {
	if u.present > n {
		dropping, cancel := context.WithTimeout(ctx, chunkTimeout)
		defer cancel()
		if err := u.collection.Drop(dropping); err != nil {
			return fmt.Errorf("dropping the users: %w", err)
		}
		u.present = 0
	}
	if u.present == n {
		return nil
	}
	bar := u.progress.bar(fmt.Sprintf("loading %s users", count(n-u.present)), n-u.present)
	defer bar.done()
	for u.present < n {
		docs := make([]bson.D, min(u.chunk, n-u.present))
		for i := range docs {
			docs[i] = user(u.present + i)
		}
		if err := u.insert(ctx, docs); err != nil {
			return err
		}
		u.present += len(docs)
		bar.add(len(docs))
	}
	return nil
}

func (u *users) insert(ctx context.Context, docs []bson.D) error {
	ctx, cancel := context.WithTimeout(ctx, chunkTimeout)
	defer cancel()
	if _, err := u.collection.InsertMany(ctx, docs); err != nil {
		return fmt.Errorf("loading users: %w", err)
	}
	return nil
}

// user returns the i-th user: a plain one of the usual size, some 200 bytes.
func user(i int) bson.D {
	created := time.Date(2025, time.January, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second)
	return bson.D{
		{Key: "_id", Value: bson.NewObjectID()},
		{Key: "username", Value: fmt.Sprintf("member-%07d", i)},
		{Key: "email", Value: fmt.Sprintf("member-%07d@codex.example", i)},
		{Key: "roles", Value: bson.A{"author", "viewer"}},
		{Key: "createdAt", Value: created},
		{Key: "lastSynced", Value: created.AddDate(0, 1, 0)},
		{Key: "updatedAt", Value: created.AddDate(0, 2, 0)},
	}
}
