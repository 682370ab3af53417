// The bench says which servers it measures, and touches no data but its own.

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
)

// questionTimeout bounds a quick command to a server.
const questionTimeout = 5 * time.Second

// connect prepares a plain client, with the product's write concern.
func connect(uri string) (*mongo.Client, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri).
		SetServerSelectionTimeout(questionTimeout).SetWriteConcern(writeconcern.Majority()))
	if err != nil {
		return nil, fmt.Errorf("connecting to MongoDB: %w", err)
	}
	return client, nil
}

func disconnect(client *mongo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), questionTimeout)
	defer cancel()
	if err := client.Disconnect(ctx); err != nil {
		return fmt.Errorf("disconnecting from MongoDB: %w", err)
	}
	return nil
}

// describeMongoDB says which server answers, and what kind it is.
func describeMongoDB(ctx context.Context, client *mongo.Client, kind string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	admin := client.Database("admin")
	var build struct {
		Version  string `bson:"version"`
		FerretDB string `bson:"ferretdbVersion"`
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "buildInfo", Value: 1}}).Decode(&build); err != nil {
		return "", fmt.Errorf("asking MongoDB for its version: %w", err)
	}
	if kind == measuredMongoDB {
		return "a server for measurements, with the costs of a MongoDB", nil
	}
	if kind == embeddedMongoDB {
		return "FerretDB (embedded)", nil // which does not know its version here
	}
	if build.FerretDB != "" {
		return fmt.Sprintf("FerretDB %s (%s)", build.FerretDB, kind), nil
	}
	var hello struct {
		SetName string `bson:"setName"`
		Msg     string `bson:"msg"`
	}
	if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return "", fmt.Errorf("asking MongoDB for its topology: %w", err)
	}
	topology := "standalone"
	switch {
	case hello.SetName != "":
		topology = "replica set"
	case hello.Msg == "isdbgrid":
		topology = "sharded"
	}
	return fmt.Sprintf("MongoDB %s (%s, %s)", build.Version, kind, topology), nil
}

// describeRedis says which server answers, and what kind it is.
func describeRedis(ctx context.Context, rdb redis.UniversalClient, kind string) (string, error) {
	if kind == embeddedRedis {
		return "miniredis (embedded)", nil // which does not say more
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	info, err := rdb.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("asking Redis for its version: %w", err)
	}
	version := "of unknown version"
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), "redis_version:"); found {
			version = value
		}
	}
	return fmt.Sprintf("Redis %s (%s)", version, kind), nil
}

// claimKey is in a Redis database while a bench uses it.
const claimKey = "codex-jobs:bench"

// claimRedis makes an empty Redis database the bench's own. It returns a function that empties the database, unless another
// bench has it by then.
func claimRedis(ctx context.Context, rdb redis.UniversalClient, db int) (release func(context.Context) error, err error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	owner := rand.Text()
	keys, err := rdb.DBSize(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("looking into Redis: %w", err)
	}
	if keys > 0 {
		return nil, refusal(ctx, rdb, db, keys)
	}
	if err := rdb.SetNX(ctx, claimKey, owner, 0).Err(); err != nil {
		return nil, fmt.Errorf("claiming Redis' database: %w", err)
	}
	release = func(ctx context.Context) error {
		now, err := rdb.Get(ctx, claimKey).Result()
		if err != nil {
			return fmt.Errorf("looking whether the database is still the bench's own: %w", err)
		}
		if now != owner {
			return errors.New("the database is another's by now, and was not emptied")
		}
		return rdb.FlushDB(ctx).Err()
	}
	now, err := rdb.Get(ctx, claimKey).Result()
	if err != nil {
		return nil, fmt.Errorf("claiming Redis' database: %w", err)
	}
	if now != owner { // another bench was quicker
		return nil, refusal(ctx, rdb, db, 1)
	}
	return release, nil
}

// refusal says why the database cannot be used, and what to do.
func refusal(ctx context.Context, rdb redis.UniversalClient, db int, keys int64) error {
	advice := ""
	if n, err := rdb.Exists(ctx, claimKey).Result(); err == nil && n > 0 {
		advice = fmt.Sprintf("; a bench uses it just now, or was killed: if none does, empty it with redis-cli -n %d flushdb", db)
	}
	return fmt.Errorf("database %d of Redis is not empty (keys: %s), and the bench needs one that is: choose another, as in REDIS_DB=%d make bench%s",
		db, count(int(keys)), db+1, advice)
}
