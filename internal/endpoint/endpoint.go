// Package endpoint gives the work of a sync to an HTTP endpoint, so that a team can write it in any language. An Endpoint has an
// Update for a job.Sync. It is made of what package job exports, as a team could make it.
//
// The requests and the answers are described in openapi.json of package api, and for people in docs/endpoint.md.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/webhook"
	"github.com/codex-api/codex-jobs/pkg/job"
)

const (
	// MaxBody is the size, in bytes, that neither a request's body nor an answer's may exceed.
	MaxBody = 16 << 20
	// tries is how many times a batch is sent in all to an endpoint that answers 500, before it is halved.
	tries = 3
)

// Options say where an endpoint is, and how to ask it.
type Options struct {
	webhook.Options
	// Fields are the fields of a record to send besides its _id, or their paths. "*" alone means all.
	Fields []string
}

// Endpoint asks an HTTP endpoint. It is safe for concurrent use.
type Endpoint struct {
	Options
	client  *webhook.Client
	metrics *Metrics
}

// New returns the endpoint. Metrics can be nil. Its error says what is wrong with the options.
func New(o Options, metrics *Metrics) (*Endpoint, error) {
	client, err := webhook.New(o.Options)
	if err != nil {
		return nil, fmt.Errorf("the endpoint: %w", err)
	}
	return &Endpoint{Options: o, client: client, metrics: metrics}, nil
}

// Close closes the connections, which must be unused by then.
func (e *Endpoint) Close() { e.client.Close() }

// Update is the Update of a job.Sync: it sends one request for the batch.
func (e *Endpoint) Update(ctx context.Context, batch *job.Batch[bson.Raw]) ([]job.Outcome, error) {
	asked, err := newQuestion(batch, e.Fields)
	if err != nil {
		return nil, err
	}
	if len(asked.body) > MaxBody {
		return nil, job.Halve(fmt.Errorf("the request to the endpoint would be %d bytes large; it may have %d", len(asked.body), MaxBody), 1)
	}
	started := time.Now()
	answer, err := e.post(ctx, asked)
	var outcomes []job.Outcome
	if err == nil {
		outcomes, err = e.understand(answer, asked)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e.metrics.observe(err, time.Since(started))
	return outcomes, forEngine(err)
}

// post sends the request, and returns the answer.
func (e *Endpoint) post(ctx context.Context, asked *question) (*webhook.Answer, error) {
	answer, err := e.client.Post(ctx, asked.id, asked.body, MaxBody)
	if err == nil {
		return answer, nil
	}
	if none := new(webhook.NoAnswerError); errors.As(err, &none) {
		return nil, &away{reason: fmt.Errorf("the endpoint %w", err)}
	}
	return nil, fmt.Errorf("asking the endpoint: %w", err)
}
