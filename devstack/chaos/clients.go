// Clients of the API trigger runs at random moments, and watch how long it takes to answer, whatever is broken.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// clientCount is how many clients ask at the same time, each after a pause of at most maxClientPause.
	clientCount    = 3
	maxClientPause = 2500 * time.Millisecond
	// requestTimeout is when a client gives up, long after the API should have answered.
	requestTimeout = 10 * time.Second
	// maxAnswer is larger than any answer, in bytes.
	maxAnswer = 1 << 20
)

// clients ask the APIs.
type clients struct {
	apis   map[string]string // base addresses by name
	seed   uint64
	record *record
	http   http.Client
}

func newClients(apis map[string]string, seed uint64, r *record) *clients {
	return &clients{
		apis: apis, seed: seed, record: r,
		// A connection for each request: the API may close an idle one, which is no fault.
		http: http.Client{Timeout: requestTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// ask sends requests until rest ends. Then requests under way go on until they are answered, or ctx ends.
func (c *clients) ask(ctx, rest context.Context) {
	var asking sync.WaitGroup
	for i := range clientCount {
		random := rand.New(rand.NewPCG(c.seed, uint64(100+i)))
		asking.Go(func() {
			for rest.Err() == nil {
				c.one(ctx, random)
				timer := time.NewTimer(rand.N(maxClientPause))
				select {
				case <-timer.C:
				case <-rest.Done():
					timer.Stop()
				}
			}
		})
	}
	asking.Wait()
}

// one sends one request to one of the APIs.
func (c *clients) one(ctx context.Context, random *rand.Rand) {
	api := roles[0].names()[random.IntN(roles[0].count)]
	switch random.IntN(10) {
	case 0:
		c.send(ctx, api, http.MethodGet, "/health", "", nil)
	case 1:
		c.send(ctx, api, http.MethodGet, "/jobs/status?job=all", "", nil)
	default:
		names := codex.Registry().Names()
		c.trigger(ctx, api, names[random.IntN(len(names))], randomPayload(random))
	}
}

// randomPayload returns one that the API accepts: mostly incremental, and with any size of batches.
func randomPayload(random *rand.Rand) *tasks.SyncPayload {
	p := &tasks.SyncPayload{SyncType: tasks.SyncIncremental}
	if random.IntN(3) == 0 {
		p.SyncType = tasks.SyncFull
	}
	if random.IntN(2) == 0 {
		size := int(math.Pow(tasks.MaxBatchSize, random.Float64())) // as often below 100 as above
		p.BatchSize = &size
	}
	return p
}

// trigger triggers a run, and records whether it was acknowledged.
func (c *clients) trigger(ctx context.Context, api, job string, payload *tasks.SyncPayload) {
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // a programming error
	}
	var answered struct {
		Success bool
		Data    struct {
			JobID     string
			Coalesced bool
		}
	}
	asked := time.Now()
	status := c.send(ctx, api, http.MethodPost, "/jobs/trigger/"+job, string(body), &answered)
	if status != http.StatusOK {
		return
	}
	id, err := tasks.ParseRunID(answered.Data.JobID)
	if err != nil || id.Job != job || !answered.Success {
		c.record.breach(promiseAnswers, "%s answered a trigger of %s at %s with success %t and the job id %q",
			api, job, clock(asked), answered.Success, answered.Data.JobID)
		return
	}
	c.record.wasAcknowledged(acknowledged{
		id: answered.Data.JobID, kind: payload.SyncType, api: api, coalesced: answered.Data.Coalesced,
		asked: asked, answered: time.Now(),
	})
}

// send sends a request and records what came of it. It returns the status, and decodes the answer if there is one.
func (c *clients) send(ctx context.Context, api, method, path, body string, decoded any) (status int) {
	a := answer{api: api, what: method + " " + path, asked: time.Now()}
	a.status, a.err = c.exchange(ctx, method, c.apis[api]+path, body, decoded)
	a.took = time.Since(a.asked)
	if ctx.Err() == nil {
		c.record.answered(a)
	}
	return a.status
}

func (c *clients) exchange(ctx context.Context, method, url, body string, decoded any) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", method, url, err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err // it names the URL
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("reading the answer to %s %s: %w", method, url, err)
	}
	if decoded != nil && response.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, decoded); err != nil {
			return 0, fmt.Errorf("reading the answer to %s %s: %w", method, url, err)
		}
	}
	return response.StatusCode, nil
}
