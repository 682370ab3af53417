// The bench compares a sync with the same work done by MongoDB's driver alone.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
)

// fetchSize is how many users the server sends at a time. The product asks for as many.
const fetchSize = 1000

// operationTimeout bounds one command of the driver alone.
const operationTimeout = 30 * time.Second

// driverAlone updates all n users as a full sync does, with nothing but MongoDB's driver: one cursor, and the writers,
// batches and commands that the settings ask for. It has no retries, no checkpoints and no log, so no sync can be much
// faster. It returns how long it took.
func (b *bench) driverAlone(ctx context.Context, n int) (_ time.Duration, err error) {
	client, err := connect(b.cfg.MongoDB.URI)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, disconnect(client)) }()
	if err := bounded(ctx, func(ctx context.Context) error { return client.Ping(ctx, nil) }); err != nil {
		return 0, fmt.Errorf("pinging MongoDB: %w", err)
	}
	collection := client.Database(b.cfg.MongoDB.Database).Collection(b.users.collection.Name())

	started := time.Now()
	update, err := bson.Marshal(bson.D{
		{Key: "$max", Value: bson.D{{Key: "lastSynced", Value: bson.NewDateTimeFromTime(started)}}},
		{Key: "$currentDate", Value: bson.D{{Key: "updatedAt", Value: true}}},
	})
	if err != nil {
		return 0, fmt.Errorf("encoding an update: %w", err)
	}
	batches := make(chan []bson.RawValue)
	var matched atomic.Int64
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error {
		defer close(batches)
		return readIDs(working, collection, b.cfg.Sync.BatchSize, batches)
	})
	for range b.cfg.Sync.Writers {
		work.Go(func() error {
			for batch := range batches {
				for ids := range slices.Chunk(batch, b.cfg.Sync.BulkSize) {
					n, err := writeBulk(working, collection, ids, update)
					if err != nil {
						return err
					}
					matched.Add(n)
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(started)
	if matched.Load() != int64(n) {
		return 0, fmt.Errorf("the driver alone updated %d users of %d", matched.Load(), n)
	}
	return took, nil
}

// readIDs sends the _ids of all users on in batches.
func readIDs(ctx context.Context, collection *mongo.Collection, size int, batches chan<- []bson.RawValue) (err error) {
	byID := bson.D{{Key: "_id", Value: 1}}
	opts := options.Find().SetSort(byID).SetHint(byID).SetBatchSize(fetchSize).SetProjection(byID)
	var cursor *mongo.Cursor
	if err := bounded(ctx, func(ctx context.Context) (err error) {
		cursor, err = collection.Find(ctx, bson.D{}, opts)
		return err
	}); err != nil {
		return fmt.Errorf("reading users: %w", err)
	}
	defer func() {
		_ = bounded(context.WithoutCancel(ctx), cursor.Close) // the server drops it by itself later
	}()
	for {
		batch := make([]bson.RawValue, 0, size)
		for len(batch) < size {
			more, err := next(ctx, cursor)
			if err != nil {
				return fmt.Errorf("reading users: %w", err)
			}
			if !more {
				break
			}
			id := cursor.Current.Lookup("_id")
			id.Value = slices.Clone(id.Value) // the cursor uses its memory again
			batch = append(batch, id)
		}
		if len(batch) == 0 {
			return nil
		}
		select {
		case batches <- batch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next moves the cursor. Only when it has to ask the server is there a deadline.
func next(ctx context.Context, cursor *mongo.Cursor) (more bool, err error) {
	if cursor.RemainingBatchLength() > 0 {
		return cursor.Next(ctx), cursor.Err()
	}
	err = bounded(ctx, func(ctx context.Context) error {
		more = cursor.Next(ctx)
		return cursor.Err()
	})
	return more, err
}

// writeBulk updates the users, and returns how many there were.
func writeBulk(ctx context.Context, collection *mongo.Collection, ids []bson.RawValue, update bson.Raw) (matched int64, err error) {
	models := make([]mongo.WriteModel, len(ids))
	for i, id := range ids {
		models[i] = mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}}).SetUpdate(update)
	}
	err = bounded(ctx, func(ctx context.Context) error {
		result, err := collection.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		if err == nil {
			matched = result.MatchedCount
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("updating users: %w", err)
	}
	return matched, nil
}

// bounded calls one operation with a deadline.
func bounded(ctx context.Context, operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	return operation(ctx)
}
