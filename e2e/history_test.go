// The history outlives Redis, and waits for MongoDB.

package e2e_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

func TestHistoryOutlivesRedis(t *testing.T) {
	t.Parallel()
	s := setup(t)
	mongo, uri := s.faultyMongo(t)
	var users []bson.D
	for i := range 30 {
		users = append(users, bson.D{{Key: "_id", Value: int32(i)}, {Key: "username", Value: "ada"}})
	}
	s.insert(t, users)
	if err := mongo.FailUpdates(121, "Document failed validation", int32(7)); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "MONGODB_URI="+uri, "JOB_ATTEMPTS=1", "SYNC_PATIENCE=0s", "API_KEYS=ops:write:0123456789abcdef")
	api, worker := s.startReady(t, "api"), s.startReady(t, "worker")
	asked, err := client.New(s.api, client.WithAPIKey("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	await := func(id string) (e client.HistoryEntry) {
		t.Helper()
		testbed.Eventually(t, "the entry of "+id, func() bool {
			found, err := asked.HistoryEntry(t.Context(), id)
			e = found
			return err == nil
		})
		return e
	}
	trigger := func() string {
		t.Helper()
		accepted, err := asked.Trigger(t.Context(), userSync, client.SyncPayload{SyncType: client.SyncFull})
		if err != nil {
			t.Fatal(err)
		}
		return accepted.JobID
	}

	// A run, with the record that failed, and actions, with the key's name.
	completed := trigger()
	e := await(completed)
	if e.State != client.StateCompleted || e.By == nil || *e.By != (client.TriggeredBy{Kind: "key", Key: "ops"}) || len(e.EndedAttempts) != 1 ||
		e.Counts == nil || *e.Counts != (client.RecordCounts{Processed: 30, Updated: 29, Failed: 1}) || len(e.FailedRecords) != 1 ||
		e.FailedRecords[0] != (client.FailedRecord{ID: "7", Name: "ada", Reason: "Document failed validation"}) {
		t.Errorf("the entry of the run is %+v", e)
	}
	for _, act := range []func() (string, error){
		func() (string, error) { return asked.Pause(t.Context(), userSync) },
		func() (string, error) { return asked.Resume(t.Context(), userSync) },
	} {
		if _, err := act(); err != nil {
			t.Fatal(err)
		}
	}

	// MongoDB is away when the next run ends, and all is restarted.
	mongo.Refuse()
	failed := trigger()
	testbed.Eventually(t, "the failure of "+failed, func() bool {
		j, err := asked.Job(t.Context(), failed)
		return err == nil && j.State == client.StateFailed
	})
	asking := time.Now()
	if _, err := asked.History(t.Context(), client.HistoryFilter{}); !client.Temporary(err) || time.Since(asking) > 5*time.Second {
		t.Errorf("without MongoDB the history said %v after %s", err, time.Since(asking))
	}
	worker.stop(t)
	api.stop(t)
	if err := mongo.Heal(); err != nil {
		t.Fatal(err)
	}
	s.startReady(t, "api")
	s.startReady(t, "worker")
	if e := await(failed); e.State != client.StateFailed || e.Error == "" {
		t.Errorf("the entry of the run that failed is %+v", e)
	}

	// By hand it is the same entry, with both attempts.
	if _, err := asked.Retry(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, "the end of the retry", func() bool {
		e, err := asked.HistoryEntry(t.Context(), failed)
		return err == nil && e.State == client.StateCompleted && len(e.EndedAttempts) == 2 && e.By.Kind == "retry"
	})

	// Redis loses all.
	if err := s.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := asked.Job(t.Context(), completed); !client.IsNotFound(err) {
		t.Errorf("Redis still has the run: %v", err)
	}
	var kinds, ids []string
	for e, err := range asked.AllHistory(t.Context(), client.HistoryFilter{Job: userSync, Limit: 3}) {
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, e.Kind)
		if e.Kind == client.HistoryRun {
			ids = append(ids, e.ID)
		} else if e.By == nil || e.By.Key != "ops" {
			t.Errorf("%s was done by %+v", e.Kind, e.By)
		}
	}
	if !slices.Equal(kinds, []string{"run", "resume", "pause", "run"}) || !slices.Equal(ids, []string{failed, completed}) {
		t.Errorf("the history has %q, and the runs %q", kinds, ids)
	}
	if status, body := s.request(t, http.MethodGet, "/history", ""); status != http.StatusUnauthorized {
		t.Errorf("without a key: %d %s", status, body)
	}
}
