// An index on lastSynced looks like a good idea. This section measures its effect.

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// indexTimeout bounds making the index, and dropping it.
const indexTimeout = 2 * time.Minute

// measureIndex measures a full sync, and an incremental one for which all users are due, each with an index on lastSynced
// and without.
func (b *bench) measureIndex(ctx context.Context) error {
	n := b.plan.comparisons
	if err := b.users.ensure(ctx, n); err != nil {
		return err
	}
	figures := []figure{
		{What: "full sync, " + count(n) + " users"},
		{What: "incremental sync, " + count(n) + " users, all due"},
	}
	for i := range figures {
		figures[i].Section, figures[i].Unit = "index", usersPerSecond
		figures[i].Against = "no index on lastSynced"
	}
	workers := []spec{newWorker(settings{"USER_SYNC_FRESHNESS": "1ms"})} // users that an earlier run has stamped are due
	both := func(number int, how string, speeds func(*figure) *[]float64) error {
		for i, payload := range []*tasks.SyncPayload{full, incremental} {
			c, err := b.syncOn(ctx, workers, n, payload)
			if err != nil {
				return err
			}
			b.progress.say("%s, %s, round %d: %s", figures[i].What, how, number, rounded(c.took))
			list := speeds(&figures[i])
			*list = append(*list, perSecond(n, c.took))
		}
		return nil
	}
	err := rounds(func(number int) error {
		err := both(number, "no index", func(f *figure) *[]float64 { return &f.AgainstSamples })
		if err != nil {
			return err
		}
		return b.withIndex(ctx, func() error {
			return both(number, "with an index on lastSynced", func(f *figure) *[]float64 { return &f.Samples })
		})
	})
	if err != nil {
		return err
	}
	for _, f := range figures {
		f.What += ", with an index"
		b.report.addMedians(f)
	}
	return nil
}

// withIndex calls do while there is an index on lastSynced.
func (b *bench) withIndex(ctx context.Context, do func() error) (err error) {
	creating, cancel := context.WithTimeout(ctx, indexTimeout)
	defer cancel()
	indexes := b.users.collection.Indexes()
	name, err := indexes.CreateOne(creating, mongo.IndexModel{Keys: bson.D{{Key: "lastSynced", Value: 1}}})
	if err != nil {
		return fmt.Errorf("creating an index: %w", err)
	}
	defer func() {
		dropping, cancel := context.WithTimeout(ctx, indexTimeout)
		defer cancel()
		if dropped := indexes.DropOne(dropping, name); dropped != nil {
			err = errors.Join(err, fmt.Errorf("dropping an index: %w", dropped))
		}
	}()
	return do()
}
