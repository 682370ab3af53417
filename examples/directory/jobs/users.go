// The sync of users.

package jobs

import (
	"context"
	"time"

	"github.com/codex-api/codex-jobs/pkg/job"

	"example.com/directory/directory"
)

// User is what the sync sees of a user in the collection. The _id is the user's ID in the directory.
type User struct {
	Email       string `bson:"email"`
	DisplayName string `bson:"displayName"`
	Department  string `bson:"department"`
	// Gone is true if the directory does not know the user any more.
	Gone bool `bson:"gone"`
}

// Directory knows the users. *directory.Client is one.
type Directory interface {
	Users(ctx context.Context, ids []string) (map[string]directory.Entry, error)
}

// UserSync keeps the users as the directory has them. The directory allows five calls a second, from all workers together. A
// batch of up to directory.PageSize users is one call. That is the default size of a batch. Larger ones would take several calls,
// get the answer 429 now and then, and wait.
func UserSync(from Directory) job.Sync[User] {
	return job.Sync[User]{
		Name: "user-sync", Noun: "user", Collection: "users", NameField: "displayName",
		Update: func(ctx context.Context, batch *job.Batch[User]) ([]job.Outcome, error) {
			ids := make([]string, len(batch.Records))
			for i, record := range batch.Records {
				ids[i] = record.ID
			}
			entries, err := from.Users(ctx, ids)
			if err != nil {
				return nil, wait(err)
			}
			outcomes := make([]job.Outcome, len(batch.Records))
			for i, record := range batch.Records {
				entry, known := entries[record.ID]
				switch {
				case !known:
					outcomes[i] = goneOutcome
				case entry.Err != nil:
					outcomes[i].Err = entry.Err
				default:
					outcomes[i] = compare(record.Data, entry.User)
				}
			}
			return outcomes, nil
		},
		Options: job.Options{
			Schedule: job.Schedule{Every: 20 * time.Minute},
			Rate:     job.Rate{Calls: 5, Per: time.Second},
		},
	}
}

// goneOutcome is what becomes of a user whom the directory does not know. That is no error: people leave. What the directory said
// of them goes, and the rest of the record stays.
var goneOutcome = job.Outcome{
	Set:   map[string]any{"gone": true},
	Unset: []string{"email", "displayName", "department"},
}

// compare returns what has changed.
func compare(have User, want directory.User) job.Outcome {
	set := make(map[string]any)
	for _, field := range []struct{ name, have, want string }{
		{"email", have.Email, want.Email},
		{"displayName", have.DisplayName, want.DisplayName},
		{"department", have.Department, want.Department},
	} {
		if field.have != field.want {
			set[field.name] = field.want
		}
	}
	outcome := job.Outcome{Set: set}
	if have.Gone { // and is back
		outcome.Unset = []string{"gone"}
	}
	return outcome
}
