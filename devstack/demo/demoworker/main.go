// Command demoworker is the demo's worker: its syncs ask the demo's upstream for the score of each record. UPSTREAM_URL is where that
// is. Its other settings are the worker's.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/codex-api/codex-jobs/devstack/demo/upstream"
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/job"
	"github.com/codex-api/codex-jobs/pkg/program/worker"
)

// askTimeout bounds one question.
const askTimeout = 5 * time.Second

func main() {
	url := os.Getenv("UPSTREAM_URL")
	if url == "" {
		fmt.Fprintln(os.Stderr, "demoworker: UPSTREAM_URL is not set: it is for the demo")
		os.Exit(2)
	}
	var types []job.Type
	for _, sync := range codex.Syncs {
		sync.Update = scores(&http.Client{Timeout: askTimeout}, url)
		types = append(types, job.NewSync(sync))
	}
	worker.Main(types...)
}

// scores returns an Update that sets the score of each record that has one.
func scores(client *http.Client, url string) func(context.Context, *job.Batch[codex.Stamped]) ([]job.Outcome, error) {
	return func(ctx context.Context, batch *job.Batch[codex.Stamped]) ([]job.Outcome, error) {
		ids := make([]string, len(batch.Records))
		for i, record := range batch.Records {
			ids[i] = record.ID
		}
		found, err := upstream.Ask(ctx, client, url, ids)
		if errors.Is(err, upstream.ErrAway) {
			return nil, job.Wait(err, 0)
		}
		if err != nil {
			return nil, err
		}
		outcomes := make([]job.Outcome, len(ids))
		for i, score := range found {
			if score != nil {
				outcomes[i].Set = map[string]any{"score": *score}
			}
		}
		return outcomes, nil
	}
}
