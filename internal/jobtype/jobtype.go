// Package jobtype is what the three programs know of a job type: its definition, and for a worker what it does. Package job of
// pkg makes job types. The programs take them from there with Of.
package jobtype

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// Type is a job type. It has either a Handler or a Sync.
type Type struct {
	// Definition is what all programs know.
	Definition tasks.Definition
	// Handler does the work of a job type that is no sync.
	Handler Handler
	// Sync is what a sync does.
	Sync *Sync
	// Err is what is wrong with it. The programs do not start with such a job type.
	Err error
}

// Sync says what a sync does.
type Sync struct {
	// Noun is the log's word for a record: "user".
	Noun string
	// MaxBatch is how many records a batch has at most. 0 leaves it to the settings.
	MaxBatch int
	// Store says which records there are. Its bounds are not used.
	Store mongodb.Config
	// Work makes what an attempt does with its batches.
	Work func(*Attempt) syncrun.Work
}

// Of returns the job type of a job.Type. Package job sets it: job.Type shows nothing of what is internal, so only this can look
// into it.
var Of func(public any) Type

// Registry returns the registry of the job types. Its error says what is wrong with each.
func Registry(types []Type) (*tasks.Registry, error) {
	var wrong []error
	var definitions []tasks.Definition
	owners := make(map[[2]string]string) // the sync that keeps its dates in a field of a collection
	for _, t := range types {
		if t.Sync != nil && t.Err == nil {
			field := [2]string{t.Sync.Store.Collection, cmp.Or(t.Sync.Store.SyncedField, mongodb.DefaultSyncedField)}
			if owner, taken := owners[field]; taken {
				t.Err = fmt.Errorf("%s keeps its date in %s of %s, too; give one of them another SyncedField", owner, field[1], field[0])
			}
			owners[field] = t.Definition.Name
		}
		if t.Definition.Name == jobs.NotifyJob && t.Err == nil {
			t.Err = fmt.Errorf("its name must not be %q, which is that of notifications", jobs.NotifyJob)
		}
		if t.Err != nil {
			wrong = append(wrong, fmt.Errorf("job type %q: %w", t.Definition.Name, t.Err))
		}
		definitions = append(definitions, t.Definition)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	if len(definitions) == 0 {
		return nil, errors.New("there is no job type")
	}
	return tasks.NewRegistry(definitions...)
}

// All returns the job types of job.Types.
func All[T any](public []T) []Type {
	types := make([]Type, len(public))
	for i, t := range public {
		types[i] = Of(t)
	}
	return types
}
