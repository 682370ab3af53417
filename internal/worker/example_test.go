package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/worker"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// A new job type is a Definition, which belongs to package tasks and its Default registry ...
var welcomeMail = tasks.Definition{
	Name:       "welcome-mail",
	Title:      "Welcome mail",
	NewPayload: func() tasks.Payload { return new(welcome) },
	Attempts:   5, // what is left out has the defaults
}

// ... with a payload that knows what its fields must be ...
type welcome struct {
	To       string `json:"to" allowed:"an e-mail address"`
	Language string `json:"language" allowed:"\"en\" or \"nl\""`
}

// UniqueKey makes a second trigger for the same recipient find the run that still waits.
func (w *welcome) UniqueKey() string { return w.To }

// Validate sets the default language, and refuses wrong values.
func (w *welcome) Validate() error {
	switch {
	case !strings.Contains(w.To, "@"):
		return tasks.NewFieldError(w, "to", w.To)
	case w.Language == "":
		w.Language = "en"
	case w.Language != "en" && w.Language != "nl":
		return tasks.NewFieldError(w, "language", w.Language)
	}
	return nil
}

// ... and a Handler, which the worker is given in internal/programs/worker.
func sendWelcome(outbox chan<- string) worker.Handler {
	greetings := map[string]string{"en": "Welcome", "nl": "Welkom"}
	return func(_ context.Context, run *worker.Attempt) (any, error) {
		w := run.Payload.(*welcome)
		outbox <- fmt.Sprintf("to %s: %s!", w.To, greetings[w.Language])
		// An error here would be a failed attempt, and be tried again.
		return map[string]any{"sent": true, "attempt": run.Number}, nil
	}
}

// The route, the check of its body, retries, retention, pausing and the dashboard follow from the Definition.
func Example_newJobType() {
	options, release, err := redistest.Acquire("Example_newJobType")
	check(err)
	defer func() { check(release()) }()
	log := slog.New(slog.DiscardHandler)
	rdb := redisconn.New(options, redisconn.Retrying, log)
	defer func() { check(rdb.Close()) }()

	// What the mains do, in one process and without MongoDB.
	registry, err := tasks.NewRegistry(welcomeMail)
	check(err)
	j := jobs.New(rdb, registry, log)
	outbox := make(chan string, 1)
	handlers := map[string]worker.Handler{welcomeMail.Name: sendWelcome(outbox)}
	w, err := worker.New(j, handlers, worker.Options{Concurrency: 1, Connect: func(hooks ...redis.Hook) redis.UniversalClient {
		return redisconn.New(options, redisconn.Worker, log, hooks...)
	}}, log)
	check(err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	defer running.Wait()
	defer stop()
	server := api.New(api.Options{Jobs: j, Database: j, Dashboard: redisconn.ConnOpt{Options: options, Limits: redisconn.Retrying, Log: log}, Log: log, Metrics: prometheus.NewRegistry()})
	defer func() { check(server.Close()) }()
	web := httptest.NewServer(server)
	defer web.Close()

	trigger(web, `{"to": "nobody", "language": "nl"}`)
	trigger(web, `{"to": "ada@codex.example", "lang": "nl"}`)
	id := trigger(web, `{"to": "ada@codex.example", "language": "nl"}`)
	fmt.Println("result", result(j, id))
	fmt.Println("sent", <-outbox)

	// Output:
	// 400 to was "nobody"; it must be an e-mail address
	// 400 the field "lang" was not known; it must be "to" (an e-mail address) or "language" ("en" or "nl") or "runAt" (an instant such as "2026-11-24T04:50:00.000Z", at most 365 days ahead) or "delay" (a whole number of milliseconds from 0 to 31536000000)
	// 200 Welcome mail (ada@codex.example) triggered successfully
	// result {"attempt":1,"sent":true}
	// sent to ada@codex.example: Welkom!
}

// trigger posts the body, prints the answer and returns the ID of the run.
func trigger(web *httptest.Server, body string) string {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost,
		web.URL+"/jobs/trigger/welcome-mail", strings.NewReader(body))
	check(err)
	request.Header.Set("Content-Type", "application/json")
	response, err := web.Client().Do(request)
	check(err)
	defer func() { check(response.Body.Close()) }()
	var answer struct {
		Message string
		Data    struct{ JobID string }
	}
	check(json.NewDecoder(response.Body).Decode(&answer))
	fmt.Println(response.StatusCode, answer.Message)
	return answer.Data.JobID
}

// result waits for the end of the run, and returns what its handler did.
func result(j *jobs.Jobs, id string) string {
	inspector := asynq.NewInspectorFromRedisClient(j.Redis())
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		info, err := inspector.GetTaskInfo(welcomeMail.Name, id)
		check(err)
		if info.State == asynq.TaskStateCompleted {
			return string(info.Result)
		}
	}
	panic("the run did not complete in time")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
