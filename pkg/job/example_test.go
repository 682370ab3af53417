package job_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/jobtest"
	"github.com/codex-api/codex-jobs/pkg/program/worker"
)

// service is what a team has already: it knows e-mail addresses.
type service map[string]string

// Emails returns the addresses of users, or an error while the service is away.
func (s service) Emails(_ context.Context, users []job.Record[User]) ([]string, error) {
	if s == nil {
		return nil, errors.New("no answer from the directory")
	}
	emails := make([]string, len(users))
	for i, user := range users {
		emails[i] = s[user.Data.Login]
	}
	return emails, nil
}

var directory = service{"ada": "ada@codex.example"}

// User is what the sync sees of a record.
type User struct {
	Login string `bson:"login"`
}

var Users = job.Sync[User]{
	Name: "user-sync", Collection: "users",
	Update: func(ctx context.Context, batch *job.Batch[User]) ([]job.Outcome, error) {
		emails, err := directory.Emails(ctx, batch.Records)
		if err != nil {
			return nil, job.Wait(err, 0) // it is away: the batch comes again, at no cost
		}
		outcomes := make([]job.Outcome, len(emails))
		for i, email := range emails {
			outcomes[i].Set = map[string]any{"email": email}
		}
		return outcomes, nil
	},
	Options: job.Options{Schedule: job.Schedule{Every: 20 * time.Minute}},
}

// A sync brings the records of a collection up to date, batch by batch.
func ExampleSync() {
	written, err := jobtest.Update(context.Background(), Users, jobtest.With{}, bson.M{"_id": 1, "login": "ada"})
	fmt.Println(written[0].Set, err)
	// Output: map[email:ada@codex.example] <nil>
}

// A sync can have other date fields, a filter, and outcomes that remove fields or fail single records.
func ExampleOutcome() {
	customers := job.Sync[struct {
		Mail string `bson:"mail"`
	}]{
		Name: "customer-sync", Noun: "customer", Collection: "customers",
		SyncedField: "checkedAt", UpdatedField: "changedAt", Filter: bson.D{{Key: "active", Value: true}},
	}
	customers.Update = func(_ context.Context, batch *job.Batch[struct {
		Mail string `bson:"mail"`
	}]) ([]job.Outcome, error) {
		outcomes := make([]job.Outcome, len(batch.Records))
		for i, record := range batch.Records {
			switch mail := record.Data.Mail; {
			case mail == "":
				outcomes[i].Err = errors.New("it has no address")
			case strings.HasSuffix(mail, ".invalid"):
				outcomes[i].Unset = []string{"mail"}
			}
		}
		return outcomes, nil
	}
	written, err := jobtest.Update(context.Background(), customers, jobtest.With{SyncType: job.Full},
		bson.M{"_id": 1, "mail": "ada@codex.example"}, bson.M{"_id": 2}, bson.M{"_id": 3, "mail": "eve@codex.invalid"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range written {
		fmt.Println(w.ID, w.Set, w.Unset, w.Err)
	}
	// Output:
	// 1 map[] [] <nil>
	// 2 map[] [] it has no address
	// 3 map[] [mail] <nil>
}

// Welcome is the payload of a mail.
type Welcome struct {
	To       string `json:"to" allowed:"an e-mail address" required:"true"`
	Language string `json:"language" options:"en,nl"`
}

// Validate sets defaults, and refuses what is wrong. A client gets the error as its answer, with status 400.
func (w *Welcome) Validate() error {
	if w.Language == "" {
		w.Language = "en"
	}
	if !strings.Contains(w.To, "@") {
		return fmt.Errorf("to was %q; it must be an e-mail address", w.To)
	}
	return nil
}

// Sent is the result of a mail.
type Sent struct {
	MessageID string `json:"messageId"`
}

var WelcomeMail = job.Job[Welcome, Sent]{
	Name:      "welcome-mail",
	PerWorker: 10,                       // at the same time
	Unique:    job.UniqueFor(time.Hour), // no user gets it twice in an hour
	Do: func(_ context.Context, run *job.Run[Welcome]) (Sent, error) {
		run.Log.Info("Sending", "to", run.Payload.To)
		return Sent{MessageID: run.Payload.Language + "-1"}, nil
	},
	Options: job.Options{Rate: job.Rate{Calls: 100, Per: time.Minute}}, // over all workers
}

// A job is a function from a payload to a result.
func ExampleJob() {
	done, err := jobtest.Do(context.Background(), WelcomeMail, Welcome{To: "ada@codex.example"}, jobtest.With{})
	fmt.Println(done.Result.MessageID, err)
	_, err = jobtest.Do(context.Background(), WelcomeMail, Welcome{To: "ada"}, jobtest.With{})
	fmt.Println(err)
	// Output:
	// en-1 <nil>
	// the payload of welcome-mail: to was "ada"; it must be an e-mail address
}

// A long job saves where it got to. The next attempt goes on from there, after a failure, a crash or the end of its worker.
func ExampleRun_Save() {
	type nothing struct{}
	export := job.Job[nothing, int]{
		Name: "export",
		Do: func(ctx context.Context, run *job.Run[nothing]) (int, error) {
			page := 0
			if _, err := run.Checkpoint(&page); err != nil {
				return 0, err
			}
			for ; page < 4; page++ {
				select {
				case <-run.Stopping():
					return 0, errors.New("the worker stops") // at no cost: the run goes on at another one
				default:
				}
				// Export the page here. After a crash it is exported again.
				if err := run.Save(ctx, page+1, 25*(page+1)); err != nil {
					return 0, err
				}
			}
			return page, nil
		},
	}
	done, err := jobtest.Do(context.Background(), export, nothing{}, jobtest.With{Number: 2, Checkpoint: 2})
	fmt.Println(done.Result, err)
	for _, saved := range done.Saved {
		fmt.Println(string(saved.Checkpoint), saved.Percent)
	}
	// Output:
	// 4 <nil>
	// 3 75
	// 4 100
}

// What it needs is away, or asks for less: the attempt waits, and that costs nothing.
func ExampleWait() {
	away := Users
	away.Update = func(context.Context, *job.Batch[User]) ([]job.Outcome, error) {
		return nil, job.Wait(errors.New("too many requests"), 30*time.Second)
	}
	_, err := jobtest.Update(context.Background(), away, jobtest.With{}, bson.M{"_id": 1})
	after, waits := jobtest.Waits(err)
	fmt.Println(err, after, waits)
	// Output: too many requests 30s true
}

// The service answers that the whole batch cannot be worked on, and not which record is why. So the batch is passed again, twice, and
// then in halves, down to the record that fails alone. The others are brought up to date.
func ExampleHalve() {
	picky := Users
	picky.Update = func(_ context.Context, batch *job.Batch[User]) ([]job.Outcome, error) {
		for _, user := range batch.Records {
			if user.Data.Login == "" {
				return nil, job.Halve(errors.New("internal server error"), 3)
			}
		}
		return make([]job.Outcome, len(batch.Records)), nil
	}
	_, err := jobtest.Update(context.Background(), picky, jobtest.With{}, bson.M{"_id": 1, "login": "ada"}, bson.M{"_id": 2})
	tries, halves := jobtest.Halves(err)
	fmt.Println(err, tries, halves)
	// Output: internal server error 3 true
}

// Another attempt would be useless.
func ExamplePermanent() {
	closed := WelcomeMail
	closed.Do = func(context.Context, *job.Run[Welcome]) (Sent, error) {
		return Sent{}, job.Permanent(errors.New("the account is closed"))
	}
	_, err := jobtest.Do(context.Background(), closed, Welcome{To: "ada@codex.example"}, jobtest.With{})
	fmt.Println(err, jobtest.IsPermanent(err))
	// Output: the account is closed true
}

// The main of a worker. Those of the api and the scheduler are alike.
func Example_main() {
	main := func() { worker.Main(job.NewSync(Users), job.New(WelcomeMail)) }
	_ = main // it runs until the process ends
	fmt.Println(job.NewSync(Users).Err(), job.New(WelcomeMail).Err())
	// Output: <nil> <nil>
}
