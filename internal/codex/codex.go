// Package codex has the job types of the Codex API: a sync for each of its three collections. They only set the two dates of each
// record.
package codex

import (
	"time"

	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// Stamped is what the syncs see of a record: nothing, because they only set its dates.
type Stamped struct{}

// Syncs are the syncs, one for each collection. Only the users have a schedule unless the settings give the others one.
var Syncs = []job.Sync[Stamped]{
	{
		Name: "user-sync", Noun: "user", Collection: "users", NameField: "username",
		Options: job.Options{Schedule: job.Schedule{Every: 20 * time.Minute}},
	},
	{Name: "project-sync", Noun: "project", Collection: "projects", NameField: "name"},
	{Name: "issue-sync", Noun: "issue", Collection: "issues", NameField: "title"},
}

// Types returns the job types.
func Types() []job.Type {
	var types []job.Type
	for _, sync := range Syncs {
		types = append(types, job.NewSync(sync))
	}
	return types
}

// Registry returns the registry of the job types.
func Registry() *tasks.Registry {
	registry, err := jobtype.Registry(jobtype.All(Types()))
	if err != nil {
		panic(err) // a programming error that every test would show
	}
	return registry
}

// The definitions of the job types.
var (
	UserSync    = definition(0)
	ProjectSync = definition(1)
	IssueSync   = definition(2)
)

func definition(i int) tasks.Definition { return jobtype.Of(Types()[i]).Definition }
