package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/mongodb/faultproxy"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// TestPass visits users as old collections have them, range by range. The connection breaks now and then, and some users cannot
// be updated.
func TestPass(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	random := rand.New(rand.NewPCG(1, 2))
	var docs []bson.D
	var want, got syncrun.Checkpoint
	var bad []any
	for i := range 600 {
		var id any
		switch i % 10 {
		case 0, 1:
			id = fmt.Sprintf("legacy-%06d", random.IntN(1e6))
		case 2:
			id = int32(100_000 + i)
		case 3:
			id = int64(1_000_000_000_000 + i)
		default:
			id = bson.NewObjectIDFromTimestamp(reference.Add(-time.Duration(random.Int64N(int64(1000 * time.Hour)))))
		}
		doc := bson.D{{Key: "_id", Value: id}, {Key: "username", Value: fmt.Sprint("user", i)}, {Key: "roles", Value: bson.A{"dev"}}}
		due := true
		switch random.IntN(7) {
		case 0:
			doc = append(doc, bson.E{Key: lastSynced, Value: nil})
		case 1:
			doc = append(doc, bson.E{Key: lastSynced, Value: "2026-02-28T10:00:00.000Z"})
		case 2:
			doc = append(doc, bson.E{Key: lastSynced, Value: int64(1775428015000)})
		case 3:
			doc = append(doc, bson.E{Key: lastSynced, Value: at(-time.Duration(random.Int64N(int64(100*time.Hour))) - freshness)})
		case 4:
			doc = append(doc, bson.E{Key: lastSynced, Value: at(time.Duration(random.Int64N(int64(100*time.Hour))) + 25*time.Hour)})
		case 5:
			doc = append(doc, bson.E{Key: lastSynced, Value: at(-time.Minute)})
			due = false
		}
		docs = append(docs, doc)
		switch {
		case due && random.IntN(50) == 0:
			bad = append(bad, id)
			want.Errors++
			want.Processed++
		case due:
			want.Updated++
			want.Processed++
		}
	}
	b.insert(t, docs...)
	ranges := b.split(t, 250)
	if len(ranges) != 3 {
		t.Errorf("%d ranges of 250 users, want 3", len(ranges))
	}
	inject(t, func() error { return proxy.FailUpdates(121, "Document failed validation", bad...) })
	for range 3 {
		proxy.Inject(faultproxy.Fault{Command: "update", Kind: faultproxy.CutBefore, Skip: 5})
		proxy.Inject(faultproxy.Fault{Command: "update", Kind: faultproxy.CutAfter, Skip: 5})
	}
	proxy.Inject(faultproxy.Fault{Command: "find", Code: 11600, Message: "interrupted at shutdown"})

	for _, within := range ranges {
		pass := syncrun.Pass{
			Noun: "user", Store: b.store, Work: syncrun.Stamping{}, Selection: incremental, Range: within,
			BatchSize: 25, Writers: 2, RetryBudget: time.Minute,
			Save: func(context.Context, syncrun.Checkpoint, int) error { return nil }, Log: slog.New(slog.DiscardHandler),
		}
		done, err := pass.Do(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done.Total != done.Processed {
			t.Errorf("%d users were processed of %d that were counted", done.Processed, done.Total)
		}
		got.Processed, got.Updated, got.Errors = got.Processed+done.Processed, got.Updated+done.Updated, got.Errors+done.Errors
	}
	if got.Processed != want.Processed || got.Updated != want.Updated || got.Errors != want.Errors {
		t.Errorf("the result is %+v, want %+v", got, want)
	}
	inject(t, proxy.Heal)
	// A minute later only those are due that failed.
	if n, err := b.store.Count(t.Context(), syncrun.Selection{Reference: reference.Add(time.Minute), Freshness: freshness}, syncrun.Range{}); err != nil || n != want.Errors {
		t.Errorf("%d users are due, want %d (%v)", n, want.Errors, err)
	}
}

// A server that hangs, but answers pings, holds a run for no longer than the retry budget.
func TestServerThatHangs(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"find", "update"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			const budget = 4 * time.Second
			b, proxy := setupFaulty(t, Config{ReadTimeout: budget / 8, WriteTimeout: budget / 8})
			b.insertNumbered(t, 10)
			proxy.Inject(faultproxy.Fault{Command: command, Kind: faultproxy.Hang, Times: faultproxy.Always})
			said := make(chan string, 100)
			pass := syncrun.Pass{
				Noun: "user", Store: b.store, Work: syncrun.Stamping{}, Selection: incremental, BatchSize: 25, Writers: 2,
				RetryBudget: budget, Save: func(context.Context, syncrun.Checkpoint, int) error { return nil },
				Waiting: func(_ context.Context, w syncrun.Wait) { said <- w.For }, Log: slog.New(slog.DiscardHandler),
			}
			begun := time.Now()
			_, err := pass.Do(t.Context())
			if took := time.Since(begun); !errors.Is(err, syncrun.ErrUnavailable) || took > budget+5*time.Second {
				t.Errorf("after %s: %v", took, err)
			}
			testbed.Eventually(t, "the server to answer pings", func() bool { return b.client.Ping(t.Context()) == nil })
			select {
			case <-said:
			default:
				t.Error("nothing was told of the wait")
			}
		})
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	b, proxy := setupFaulty(t, Config{})
	log := slog.New(slog.DiscardHandler)
	proxy.Refuse()
	time.AfterFunc(100*time.Millisecond, func() {
		if err := proxy.Heal(); err != nil {
			t.Error(err)
		}
	})
	if err := Await(t.Context(), b.client, log); err != nil {
		t.Error(err)
	}
	proxy.Refuse()
	reason := errors.New("asked to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(reason) })
	if err := Await(ctx, b.client, log); !errors.Is(err, reason) {
		t.Errorf("%v", err)
	}
}
