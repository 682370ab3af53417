package jobtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
)

// user is what the sync sees of a record.
type user struct {
	Login string `bson:"login"`
	Email string `bson:"email"`
}

// A sync that asks a directory for each batch.
func users(directory map[string]string) job.Sync[user] {
	return job.Sync[user]{
		Name: "user-sync", Noun: "user", Collection: "users", NameField: "login",
		Update: func(_ context.Context, batch *job.Batch[user]) ([]job.Outcome, error) {
			if directory == nil {
				return nil, job.Wait(errors.New("the directory is away"), time.Minute)
			}
			outcomes := make([]job.Outcome, len(batch.Records))
			for i, record := range batch.Records {
				email, found := directory[record.Data.Login]
				switch {
				case !found:
					outcomes[i].Unset = []string{"email"}
				case strings.Contains(email, "@"):
					outcomes[i].Set = map[string]any{"email": email}
				default:
					outcomes[i].Err = fmt.Errorf("the directory says that the address is %q", email)
				}
			}
			return outcomes, nil
		},
	}
}

func ExampleUpdate() {
	directory := map[string]string{"ada": "ada@codex.example", "bob": "?"}
	written, err := jobtest.Update(context.Background(), users(directory), jobtest.With{},
		bson.M{"_id": 1, "login": "ada", "email": "old@codex.example"},
		bson.M{"_id": 2, "login": "bob"},
		bson.M{"_id": 3, "login": "eve", "email": "eve@codex.example"},
		bson.M{"_id": 4, "login": 5},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range written {
		fmt.Println(w.ID, w.Set, w.Unset, w.Err != nil)
	}

	_, err = jobtest.Update(context.Background(), users(nil), jobtest.With{}, bson.M{"_id": 1, "login": "ada"})
	after, waits := jobtest.Waits(err)
	fmt.Println(err, after, waits)

	// Output:
	// 1 map[email:ada@codex.example] [] false
	// 2 map[] [] true
	// 3 map[] [email] false
	// 4 map[] [] true
	// the directory is away 1m0s true
}

// countdown counts down, and remembers how far it got.
var countdown = job.Job[from, end]{
	Name: "count-down",
	Do: func(ctx context.Context, run *job.Run[from]) (end, error) {
		left := run.Payload.From
		if _, err := run.Checkpoint(&left); err != nil {
			return end{}, err
		}
		for ; left > 0; left-- {
			select {
			case <-run.Stopping():
				return end{}, run.Save(ctx, left, 50)
			default:
			}
			if left == 13 {
				return end{}, job.Permanent(errors.New("13 brings bad luck"))
			}
			if err := run.Save(ctx, left-1, 100-100*left/run.Payload.From); err != nil {
				return end{}, err
			}
		}
		return end{Said: "lift-off"}, nil
	},
}

type from struct {
	From int `json:"from" allowed:"a whole number from 1"`
}

// Validate sets the default, and refuses what is wrong.
func (f *from) Validate() error {
	if f.From == 0 {
		f.From = 3
	}
	if f.From < 0 {
		return fmt.Errorf("from was %d; it must be a whole number from 1", f.From)
	}
	return nil
}

type end struct {
	Said string `json:"said"`
}

func ExampleDo() {
	ctx := context.Background()
	done, err := jobtest.Do(ctx, countdown, from{}, jobtest.With{})
	fmt.Println(done.Result.Said, len(done.Saved), err)

	done, err = jobtest.Do(ctx, countdown, from{}, jobtest.With{Number: 2, Checkpoint: 1})
	fmt.Println(done.Result.Said, len(done.Saved), err)

	_, err = jobtest.Do(ctx, countdown, from{From: 13}, jobtest.With{})
	fmt.Println(err, jobtest.IsPermanent(err))

	_, err = jobtest.Do(ctx, countdown, from{From: -1}, jobtest.With{})
	fmt.Println(err)

	// Output:
	// lift-off 3 <nil>
	// lift-off 1 <nil>
	// 13 brings bad luck true
	// the payload of count-down: from was -1; it must be a whole number from 1
}
