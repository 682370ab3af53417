package worker

import (
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// Processors returns the processor of each job type that the product ships. The work is what the synchronisations do with
// each batch.
func Processors(db *mongo.Database, settings config.Sync, work syncrun.Work) map[string]Processor {
	sync := func(def tasks.Definition, noun, collection, nameField string) Processor {
		store := mongodb.NewStore(db, mongodb.Config{
			Collection: collection, NameField: nameField, BulkSize: settings.BulkSize,
		})
		return NewSync(store, SyncOptions{
			Noun: noun, Freshness: settings.Freshness[def.Name],
			BatchSize: settings.BatchSize, Work: work, Writers: settings.Writers, RangeSize: settings.RangeSize,
			Patience: settings.Patience,
		})
	}
	return map[string]Processor{
		tasks.UserSync.Name:    sync(tasks.UserSync, "user", "users", "username"),
		tasks.ProjectSync.Name: sync(tasks.ProjectSync, "project", "projects", "name"),
		tasks.IssueSync.Name:   sync(tasks.IssueSync, "issue", "issues", "title"),
	}
}
