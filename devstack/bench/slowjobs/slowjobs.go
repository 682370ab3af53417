// Package slowjobs has job types whose work is to wait, as if they called another service. Both the bench and its worker know them.
package slowjobs

import (
	"context"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/job"
)

const (
	// Mail is the job type that waits for MailTime, with MailsPerWorker at a time on each worker.
	Mail = "mail"
	// MailsPerWorker is how many mails a worker sends at the same time.
	MailsPerWorker = 10
	// MailTime is how long a mail takes.
	MailTime = 200 * time.Millisecond
)

// Letter is the payload of a mail.
type Letter struct {
	Number int `json:"number"`
}

// Types returns the product's syncs, each batch of which waits, and the mails.
func Types(batchWait time.Duration) []job.Type {
	var types []job.Type
	for _, sync := range codex.Syncs {
		sync.Update = func(ctx context.Context, batch *job.Batch[codex.Stamped]) ([]job.Outcome, error) {
			return make([]job.Outcome, len(batch.Records)), wait(ctx, batchWait)
		}
		types = append(types, job.NewSync(sync))
	}
	return append(types, job.New(job.Job[Letter, struct{}]{
		Name: Mail, PerWorker: MailsPerWorker,
		Do: func(ctx context.Context, _ *job.Run[Letter]) (struct{}, error) {
			return struct{}{}, wait(ctx, MailTime)
		},
	}))
}

// wait returns after the time, or with ctx's cause when ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
