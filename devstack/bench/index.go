// With SYNC_INDEX an incremental run finds few due users by an index, and each stamp must update that index. This section measures both.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// indexTimeout bounds dropping the index.
	indexTimeout = 2 * time.Minute
	// dueShare is that one user of so many is due.
	dueShare = 1000
	// longFreshness is longer than the section: what it has stamped stays fresh.
	longFreshness = "24h"
)

// withoutIndex and withIndex are workers. The latter is ready when there is the index.
var (
	withoutIndex = newWorker(settings{"USER_SYNC_FRESHNESS": longFreshness})
	withIndex    = spec{
		program: workerProgram, ready: procs.Match{Msg: "The index for incremental runs is there"},
		settings: settings{"USER_SYNC_FRESHNESS": longFreshness, "SYNC_INDEX": "true"},
	}
)

// measureIndex measures an incremental sync for which one user of a thousand is due, and what the index costs a full sync.
func (b *bench) measureIndex(ctx context.Context) error {
	n := slices.Max(b.plan.sizes)
	due := n / dueShare
	if b.plan.embedded {
		b.note("the index of SYNC_INDEX: the embedded FerretDB cannot make it")
		return nil
	}
	if err := b.users.ensure(ctx, n); err != nil {
		return err
	}
	cost := figure{
		Section: "index", Unit: usersPerSecond,
		What: "full sync, " + count(n) + " users, with the index", Against: "without it",
	}
	if err := b.withAndWithout(ctx, &cost, n, full, nil); err != nil {
		return err
	}
	ids, err := b.someUsers(ctx, n, due)
	if err != nil {
		return err
	}
	gain := figure{
		Section: "index", Unit: "s",
		What: fmt.Sprintf("incremental sync, %s of %s users due, with the index", count(due), count(n)), Against: "without it, a full scan",
	}
	err = b.withAndWithout(ctx, &gain, due, incremental, func() error { return b.makeDue(ctx, ids) })
	if err != nil {
		return err
	}
	b.report.addMedians(gain)
	b.report.addMedians(cost)
	return nil
}

// withAndWithout measures a sync that updates so many users, in turns without the index and with it. Before each run it calls prepare,
// unless that is nil.
func (b *bench) withAndWithout(ctx context.Context, f *figure, updates int, payload *tasks.SyncPayload, prepare func() error) error {
	return rounds(func(number int) error {
		for _, how := range []struct {
			name    string
			worker  spec
			samples *[]float64
		}{{"without the index", withoutIndex, &f.AgainstSamples}, {"with it", withIndex, &f.Samples}} {
			if prepare != nil {
				if err := prepare(); err != nil {
					return err
				}
			}
			c, err := b.syncOn(ctx, []spec{how.worker}, updates, payload)
			if err = errors.Join(err, b.dropIndexes(ctx)); err != nil {
				return err
			}
			b.progress.say("%s: %s, round %d: %s", f.What, how.name, number, rounded(c.took))
			value := c.took.Seconds()
			if f.Unit == usersPerSecond {
				value = perSecond(updates, c.took)
			}
			*how.samples = append(*how.samples, value)
		}
		return nil
	})
}

// dropIndexes drops all but that on _id.
func (b *bench) dropIndexes(ctx context.Context) error {
	dropping, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	if err := b.users.collection.Indexes().DropAll(dropping); err != nil {
		return fmt.Errorf("dropping the indexes: %w", err)
	}
	return nil
}

// someUsers returns the _ids of so many of n users, from everywhere in the collection.
func (b *bench) someUsers(ctx context.Context, n, wanted int) ([]bson.RawValue, error) {
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	batches, failed := make(chan []bson.RawValue), make(chan error, 1)
	go func() {
		defer close(batches)
		failed <- readIDs(reading, b.users.collection, leastFields, n/wanted, batches)
	}()
	var ids []bson.RawValue
	for batch := range batches {
		if len(ids) < wanted {
			ids = append(ids, batch[len(batch)/2])
		}
	}
	return ids, <-failed
}

// makeDue makes users due, as if no run had visited them for long.
func (b *bench) makeDue(ctx context.Context, ids []bson.RawValue) error {
	old, err := bson.Marshal(bson.D{{Key: "$set", Value: bson.D{{Key: "lastSynced", Value: time.Now().AddDate(0, -1, 0)}}}})
	if err != nil {
		return fmt.Errorf("encoding an update: %w", err)
	}
	for chunk := range slices.Chunk(ids, b.cfg.Sync.BulkSize) {
		if _, err := writeBulk(ctx, b.users.collection, chunk, old); err != nil {
			return err
		}
	}
	return nil
}
