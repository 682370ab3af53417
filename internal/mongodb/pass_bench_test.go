// What a sync costs the worker's processor, beside the driver alone that does the same updates. The times of a run depend on what
// else the machine does; the processor time for a user hardly does.

package mongodb

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

const (
	benchUsers   = 20_000
	benchWriters = 4
	benchBatch   = 100
)

// processorTime returns what this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchCollection(b *testing.B) (*Client, *mongo.Database, string) {
	b.Helper()
	uri := serverURI(b)
	client, err := Connect(uri, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	db := client.Database("codex_bench")
	users := db.Collection("users")
	ctx := context.Background()
	if err := users.Drop(ctx); err != nil {
		b.Fatal(err)
	}
	for from := 0; from < benchUsers; from += 1000 {
		var documents []any
		for i := from; i < from+1000; i++ {
			documents = append(documents, bson.D{
				{Key: "_id", Value: bson.NewObjectID()}, {Key: "username", Value: fmt.Sprintf("user-%06d", i)},
				{Key: "email", Value: fmt.Sprintf("user-%06d@example.com", i)},
				{Key: "lastSynced", Value: time.Now().Add(-time.Hour)}, {Key: "updatedAt", Value: time.Now().Add(-time.Hour)},
			})
		}
		if _, err := users.InsertMany(ctx, documents); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		_ = db.Drop(ctx)
		_ = client.Close()
	})
	return client, db, "users"
}

// measured calls f, which visits all users, and reports the time and the processor time for a user.
func measured(b *testing.B, f func() error) {
	b.Helper()
	b.ResetTimer()
	before := processorTime(b)
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	users := float64(b.N) * benchUsers
	b.ReportMetric(float64(processorTime(b)-before)/1000/users, "cpu-µs/user")
	b.ReportMetric(users/b.Elapsed().Seconds(), "users/s")
}

func BenchmarkPass(b *testing.B) {
	client, db, name := benchCollection(b)
	store := NewStore(client, db.Name(), Config{Collection: name, NameField: "username"})
	measured(b, func() error {
		end, err := syncrun.Pass{
			Noun: "user", Store: store, Work: syncrun.Stamping{},
			Selection: syncrun.Selection{Full: true, Reference: time.Now(), Freshness: 20 * time.Minute},
			BatchSize: benchBatch, Writers: benchWriters, RetryBudget: time.Minute,
			Save: func(context.Context, syncrun.Checkpoint, int) error { return nil },
			Log:  slog.New(slog.DiscardHandler),
		}.Do(context.Background())
		if err == nil && end.Updated != benchUsers {
			err = fmt.Errorf("updated %d users of %d", end.Updated, benchUsers)
		}
		return err
	})
}

// BenchmarkDriverAlone is the same with the driver's own ways: a cursor over the _ids, and unordered bulk writes.
func BenchmarkDriverAlone(b *testing.B) {
	_, db, name := benchCollection(b)
	users := db.Collection(name)
	measured(b, func() error {
		work, ctx := errgroup.WithContext(context.Background())
		batches := make(chan []mongo.WriteModel)
		update, err := bson.Marshal(bson.D{
			{Key: "$max", Value: bson.D{{Key: "lastSynced", Value: time.Now()}}},
			{Key: "$currentDate", Value: bson.D{{Key: "updatedAt", Value: true}}},
		})
		if err != nil {
			return err
		}
		work.Go(func() error {
			defer close(batches)
			cursor, err := users.Find(ctx, bson.D{}, options.Find().SetSort(byID).SetProjection(byID).SetBatchSize(fetchSize))
			if err != nil {
				return err
			}
			defer cursor.Close(ctx)
			var batch []mongo.WriteModel
			for cursor.Next(ctx) {
				id := newKey(cursor.Current.Lookup("_id")).value()
				batch = append(batch, mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: "_id", Value: id}}).SetUpdate(bson.Raw(update)))
				if len(batch) == benchBatch {
					batches <- batch
					batch = nil
				}
			}
			return cursor.Err()
		})
		for range benchWriters {
			work.Go(func() error {
				for batch := range batches {
					if _, err := users.BulkWrite(ctx, batch, options.BulkWrite().SetOrdered(false)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return work.Wait()
	})
}
