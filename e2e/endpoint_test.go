package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/endpoint"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// The secrets of the endpoint.
const (
	firstSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	nextSecret  = "whsec_plJ3nmyCDGBKInavdOK15jsl9CS9Y2M3"
)

// question is what a worker asks the endpoint.
type question struct {
	JobType, RunID, SyncType string
	Attempt, Retries         int
	Reference                time.Time
	Records                  []map[string]json.RawMessage
}

// has reports whether one of the records is the one with the _id, which is JSON.
func (q question) has(id string) bool {
	for _, record := range q.Records {
		if string(record["_id"]) == id {
			return true
		}
	}
	return false
}

// reply is what the endpoint answers. Its zero value is the right one: each user gets the field plan.
type reply struct {
	status int
	header [2]string
	body   string
	late   time.Duration
}

// endpointServer is an endpoint, which knows what it has answered for.
type endpointServer struct {
	url string

	mu       sync.Mutex
	behave   func(question) reply
	secret   string         // that it verifies; "" for none
	answered map[string]int // how many times it has answered rightly for a user, by run and _id
	messages map[string]string
	asked    []question
}

func startEndpoint(t *testing.T) *endpointServer {
	t.Helper()
	s := new(endpointServer)
	s.reset(firstSecret, nil)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL + "/user-sync"
	return s
}

// reset makes it behave, and forget what it was asked.
func (s *endpointServer) reset(secret string, behave func(question) reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if behave == nil {
		behave = func(question) reply { return reply{} }
	}
	s.secret, s.behave, s.answered, s.messages, s.asked = secret, behave, make(map[string]int), make(map[string]string), nil
}

// take returns the question, and what to answer.
func (s *endpointServer) take(r *http.Request) (q question, answer reply) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return q, reply{status: http.StatusBadRequest}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret != "" {
		verifier, err := standardwebhooks.NewWebhook(s.secret)
		if err == nil {
			err = verifier.Verify(body, r.Header)
		}
		if err != nil {
			return q, reply{status: http.StatusUnauthorized, body: err.Error()}
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return q, reply{status: http.StatusBadRequest, body: err.Error()}
	}
	// The same message has the same records, and no other one has them.
	_, records, _ := bytes.Cut(body, []byte(`"records":`))
	same := fmt.Sprint(q.RunID, q.Retries, string(records))
	if before, known := s.messages[r.Header.Get("webhook-id")]; known && before != same {
		return q, reply{status: http.StatusBadRequest, body: "two messages with one id"}
	}
	s.messages[r.Header.Get("webhook-id")] = same
	s.asked = append(s.asked, q)
	return q, s.behave(q)
}

// ServeHTTP implements http.Handler.
func (s *endpointServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, answer := s.take(r)
	select {
	case <-time.After(answer.late):
	case <-r.Context().Done():
		return
	}
	if answer.status == 0 && answer.body == "" {
		var results []map[string]any
		for _, record := range q.Records {
			results = append(results, map[string]any{"_id": record["_id"], "set": map[string]any{"plan": plan(record["_id"])}})
		}
		s.mu.Lock()
		for _, record := range q.Records {
			s.answered[q.RunID+string(record["_id"])]++
		}
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
		return
	}
	if answer.header[0] != "" {
		w.Header().Set(answer.header[0], answer.header[1])
	}
	if answer.status != 0 {
		w.WriteHeader(answer.status)
	}
	_, _ = io.WriteString(w, answer.body)
}

// plan is the plan of a user.
func plan(id json.RawMessage) string { return "plan of " + string(id) }

// requests returns what it was asked.
func (s *endpointServer) requests() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// wantOnlyAnswered checks that the run has stamped each user for whom it got a right answer, with what the answer said, and no other
// user. It returns how many.
func (s *system) wantOnlyAnswered(t *testing.T, e *endpointServer, id tasks.RunID) (stamped int) {
	t.Helper()
	wrong := 0
	for _, user := range s.snapshot(t) {
		encoded, err := bson.MarshalExtJSON(bson.D{{Key: "_id", Value: user.Lookup("_id")}}, false, false)
		if err != nil {
			t.Fatal(err)
		}
		key := strings.TrimSuffix(strings.TrimPrefix(string(encoded), `{"_id":`), "}")
		e.mu.Lock()
		answered := e.answered[id.String()+key] > 0
		e.mu.Unlock()
		at, _ := user.Lookup(lastSynced).TimeOK()
		is := at.Equal(id.Reference)
		if is {
			stamped++
		}
		text, _ := user.Lookup("plan").StringValueOK()
		if is != answered || is && text != plan(json.RawMessage(key)) {
			if wrong++; wrong < 5 {
				t.Errorf("answered for: %v, but it is %s", answered, user)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d users are not as they should be", wrong)
	}
	return stamped
}

// failure waits until the run has failed, and returns the reason.
func (s *system) failure(t *testing.T, id tasks.RunID) (reason string) {
	t.Helper()
	testbed.Within(t, waitLimit, "the failure of "+id.String(), func() bool {
		info, err := s.inspector.GetTaskInfo(id.Job, id.String())
		if err != nil {
			t.Fatal(err)
		}
		reason = info.LastErr
		return info.State == asynq.TaskStateArchived
	})
	return reason
}

// A worker without the endpoint of the others takes nothing, so that no user gets dates whom the endpoint has not seen.
func TestWorkersWithAndWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	const n = 30
	s := setup(t)
	s.insert(t, messyUsers(n))
	e := startEndpoint(t)
	s.env = append(s.env, "SYNC_RANGE_SIZE=10", "SYNC_BATCH_SIZE=5")
	with := s.startReady(t, "worker", "USER_SYNC_URL="+e.url, "USER_SYNC_SECRET="+firstSecret)
	without := s.startReady(t, "worker")
	without.waitForLog(t, "Takes no runs: the other workers of this namespace have endpoints for other syncs", attrs{"level": "WARN"})
	id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
	wantComplete(t, s.result(t, id), n)
	if got := s.wantOnlyAnswered(t, e, id); got != n {
		t.Errorf("%d users are stamped, want all %d", got, n)
	}
	if lines := without.log("Starting range", nil); len(lines) > 0 {
		t.Errorf("the other worker took part: %v", lines)
	}
	with.stop(t)
	without.waitForLog(t, "Takes runs again: no other worker uses another database, or has other endpoints", nil)
	without.stop(t)
}

// Each way in which an endpoint can answer: nothing is stamped that was not answered for, and nothing is lost.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	const n, batchSize = 40, 10
	s := setup(t)
	s.insert(t, messyUsers(n))
	e := startEndpoint(t)
	const timeout = 2 * time.Second
	settings := []string{
		"USER_SYNC_URL=" + e.url, "USER_SYNC_FIELDS=username", "USER_SYNC_TIMEOUT=" + timeout.String(), "SYNC_PATIENCE=20s", "SYNC_BATCH_SIZE=10",
		"JOB_ATTEMPTS=1", "LOG_LEVEL=debug",
	}
	w := s.startReady(t, "worker", append(settings, "USER_SYNC_SECRET="+firstSecret)...)
	sync := func(t *testing.T, behave func(question) reply) tasks.RunID {
		t.Helper()
		e.reset(firstSecret, behave)
		return s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
	}
	var victim string // the _id of a user

	t.Run("well", func(t *testing.T) {
		id := sync(t, nil)
		wantComplete(t, s.result(t, id), n)
		if got := s.wantOnlyAnswered(t, e, id); got != n {
			t.Errorf("%d users are stamped, want all %d", got, n)
		}
		seen := 0
		for _, q := range e.requests() {
			if q.JobType != userSync || q.RunID != id.String() || q.SyncType != tasks.SyncFull || q.Attempt != 1 || q.Retries != 0 ||
				!q.Reference.Equal(id.Reference) || len(q.Records) > batchSize {
				t.Errorf("it was asked %+v", q)
			}
			for _, record := range q.Records {
				if seen++; len(record) > 2 || len(record) == 2 && record["username"] == nil {
					t.Errorf("it was asked about %s", record)
				}
				victim = string(record["_id"])
			}
		}
		if seen != n {
			t.Errorf("it was asked about %d users, want each once", seen)
		}
		w.mustNotLog(t, "The requests to the endpoint are unsigned")
	})
	// Only the victim has the error: the batch is halved.
	for name, answer := range map[string]reply{
		"500 for one user":                {status: http.StatusInternalServerError, body: "boom"},
		"too large an answer for one":     {body: `{"results": [` + strings.Repeat(" ", endpoint.MaxBody) + `]}`},
		"a result that says the error":    {body: "error"},
		"no result for one user":          {body: "none"},
		"a result that sets what is ours": {body: `"set": {"lastSynced": {"$date": "2020-01-01T00:00:00Z"}}`},
		"a result with an operator":       {body: `"set": {"$inc": {"logins": 1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			id := sync(t, func(q question) reply {
				if !q.has(victim) {
					return reply{}
				}
				if answer.status != 0 || len(answer.body) > 1000 {
					return answer
				}
				var results []string
				for _, record := range q.Records {
					result := fmt.Sprintf(`"_id": %s, "set": {"plan": %q}`, record["_id"], plan(record["_id"]))
					if string(record["_id"]) != victim {
						e.answered[q.RunID+string(record["_id"])]++
						results = append(results, "{"+result+"}")
						continue
					}
					switch answer.body {
					case "none":
					case "error":
						results = append(results, fmt.Sprintf(`{"_id": %s, "error": "no such account"}`, victim))
					default:
						results = append(results, fmt.Sprintf(`{"_id": %s, %s}`, victim, answer.body))
					}
				}
				return reply{body: `{"results": [` + strings.Join(results, ",") + `]}`}
			})
			result := s.result(t, id)
			if !result.Success || result.UsersProcessed != n || result.UsersUpdated != n-1 || result.Errors != 1 {
				t.Errorf("the result is %+v, want all %d users updated but one", result, n)
			}
			if got := s.wantOnlyAnswered(t, e, id); got != n-1 {
				t.Errorf("%d users are stamped, want %d", got, n-1)
			}
			if lines := w.log("User sync failed", attrs{"jobId": id.String()}); len(lines) != 1 {
				t.Errorf("the log has %v, want one user", lines)
			}
		})
	}
	// The attempt fails, and with it the run.
	for name, test := range map[string]struct {
		answer reply
		reason string
	}{
		"no JSON":              {reply{body: "<html>Please sign in</html>"}, "it must be JSON, was <html>Please sign in</html>"},
		"about another record": {reply{body: `{"results": [{"_id": "nobody", "set": {"plan": "free"}}]}`}, `about a record that was not in the request: "nobody"`},
		"a redirect":           {reply{status: http.StatusFound, header: [2]string{"Location", "/sign-in"}}, "redirects are not followed"},
		"gone":                 {reply{status: http.StatusNotFound, body: "Cannot POST /user-sync"}, "404 Not Found: Cannot POST /user-sync"},
	} {
		t.Run(name, func(t *testing.T) {
			id := sync(t, func(q question) reply {
				if q.has(victim) {
					return test.answer
				}
				return reply{}
			})
			if reason := s.failure(t, id); !strings.Contains(reason, test.reason) {
				t.Errorf("the reason is %q, want %q", reason, test.reason)
			}
			s.wantOnlyAnswered(t, e, id)
		})
	}
	t.Run("late", func(t *testing.T) {
		late := 2
		id := sync(t, func(q question) reply {
			if q.has(victim) && late > 0 {
				late--
				return reply{late: 2 * timeout}
			}
			return reply{}
		})
		result := s.result(t, id)
		result.Duration = 0
		wantComplete(t, result, n)
		s.wantOnlyAnswered(t, e, id)
		w.waitForLog(t, "The work must wait", attrs{"jobId": id.String()})
	})
	t.Run("429 with Retry-After", func(t *testing.T) {
		busy := true
		id := sync(t, func(q question) reply {
			if busy && q.has(victim) {
				return reply{status: http.StatusTooManyRequests, header: [2]string{"Retry-After", "3600"}}
			}
			return reply{}
		})
		var info *asynq.TaskInfo
		testbed.Eventually(t, "the run to be snoozed", func() bool {
			var err error
			info, err = s.inspector.GetTaskInfo(userSync, id.String())
			return err == nil && info.State == asynq.TaskStateRetry
		})
		if until := time.Until(info.NextProcessAt); until < 59*time.Minute || until > 61*time.Minute || info.Retried != 0 {
			t.Errorf("it goes on in %s, after %d retries, want an hour and none", until, info.Retried)
		}
		if got := s.wantOnlyAnswered(t, e, id); got >= n {
			t.Errorf("%d users are stamped", got)
		}
		e.mu.Lock()
		busy = false
		e.mu.Unlock()
		if err := s.inspector.RunTask(userSync, id.String()); err != nil { // in the place of an hour
			t.Fatal(err)
		}
		result := s.result(t, id)
		if !result.Success || result.UsersProcessed != n || result.Errors != 0 {
			t.Errorf("the result is %+v, want all %d users", result, n)
		}
	})
	t.Run("a wrong signature", func(t *testing.T) {
		e.reset(nextSecret, nil)
		id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
		if reason := s.failure(t, id); !strings.Contains(reason, "401 Unauthorized") || strings.Contains(reason, firstSecret[6:]) {
			t.Errorf("the reason is %q", reason)
		}
		if got := s.wantOnlyAnswered(t, e, id); got != 0 {
			t.Errorf("%d users are stamped, want none", got)
		}
	})
	w.stop(t)
	t.Run("a changed secret", func(t *testing.T) {
		w := s.startReady(t, "worker", append(settings, "USER_SYNC_SECRET="+nextSecret+","+firstSecret)...)
		for _, secret := range []string{firstSecret, nextSecret} { // before and after the change at the endpoint
			e.reset(secret, nil)
			id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
			wantComplete(t, s.result(t, id), n)
			s.wantOnlyAnswered(t, e, id)
		}
		w.stop(t)
	})
	t.Run("a rate limit", func(t *testing.T) {
		const most = 3
		w := s.startReady(t, "worker", append(settings, "USER_SYNC_RATE=3/s", "USER_SYNC_CONCURRENCY=4", "USER_SYNC_SECRET="+firstSecret)...)
		var calls []time.Time
		id := sync(t, func(q question) reply {
			calls = append(calls, time.Now())
			if q.has(victim) { // each half is a call, too
				return reply{status: http.StatusInternalServerError}
			}
			return reply{}
		})
		if result := s.result(t, id); result.UsersUpdated != n-1 || result.Errors != 1 {
			t.Errorf("the result is %+v", result)
		}
		if len(calls) < n/batchSize+4 {
			t.Errorf("there were %d calls", len(calls))
		}
		for i := most; i < len(calls); i++ {
			if within := calls[i].Sub(calls[i-most]); within < time.Second {
				t.Errorf("%d calls within %s", most+1, within)
			}
		}
		w.stop(t)
	})
	t.Run("unsigned", func(t *testing.T) {
		w := s.startReady(t, "worker", settings...)
		e.reset("", nil)
		id := s.enqueue(t, &tasks.SyncPayload{SyncType: tasks.SyncFull})
		wantComplete(t, s.result(t, id), n)
		if lines := w.log("The requests to the endpoint are unsigned", attrs{"level": "WARN", "set": "USER_SYNC_SECRET"}); len(lines) != 1 {
			t.Errorf("the log has %v, want it once", lines)
		}
		w.stop(t)
	})
}
