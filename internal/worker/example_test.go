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
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/redisconn"
	"github.com/codex-api/codex-jobs/internal/redistest"
	"github.com/codex-api/codex-jobs/internal/worker"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// welcomeMail is a job type of a team's own.
func welcomeMail(outbox chan<- string) job.Type {
	greetings := map[string]string{"en": "Welcome", "nl": "Welkom"}
	return job.New(job.Job[welcome, sent]{
		Name: "welcome-mail",
		Do: func(_ context.Context, run *job.Run[welcome]) (sent, error) {
			outbox <- fmt.Sprintf("to %s: %s!", run.Payload.To, greetings[run.Payload.Language])
			return sent{Attempt: run.Number}, nil
		},
		Options: job.Options{Attempts: 5},
	})
}

type welcome struct {
	To       string `json:"to" allowed:"an e-mail address"`
	Language string `json:"language" allowed:"\"en\" or \"nl\""`
}

type sent struct {
	Attempt int `json:"attempt"`
}

// Validate sets the default language, and refuses wrong values.
func (w *welcome) Validate() error {
	switch {
	case !strings.Contains(w.To, "@"):
		return fmt.Errorf("to was %q; it must be an e-mail address", w.To)
	case w.Language == "":
		w.Language = "en"
	case w.Language != "en" && w.Language != "nl":
		return fmt.Errorf("language was %q; it must be \"en\" or \"nl\"", w.Language)
	}
	return nil
}

// The route, the check of its body, retries, retention, pausing and the dashboard follow from a job type of a team's own.
func Example_ownJobType() {
	options, release, err := redistest.Acquire("Example_ownJobType")
	check(err)
	defer func() { check(release()) }()
	log := slog.New(slog.DiscardHandler)
	rdb := redisconn.New(options, redisconn.Retrying, log)
	defer func() { check(rdb.Close()) }()

	// What the mains do, in one process and without MongoDB.
	outbox := make(chan string, 1)
	mail := jobtype.Of(welcomeMail(outbox))
	registry, err := jobtype.Registry([]jobtype.Type{mail})
	check(err)
	j := jobs.New(rdb, registry, log)
	handlers := map[string]jobtype.Handler{mail.Definition.Name: mail.Handler}
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
	// 200 Welcome mail triggered successfully
	// result {"attempt":1}
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
		info, err := inspector.GetTaskInfo("welcome-mail", id)
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
