package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The command trigger, and the payload that its flags make.

// request is the flags of trigger.
type request struct {
	full      bool
	batchSize int
	data      string
	wait      bool
}

func (a *app) triggerCommand() *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "trigger JOB",
		Short: "Start a job; with --wait, wait for its end",
		Long: `Enqueue a job. A worker runs it when no other job of its type is active. When a job of the same kind
already waits, that job serves the trigger. A synchronisation is incremental unless --full is given.
"codexctl job-types" lists the job types, and the fields that --data can have for each.

With --wait it shows the progress until the job has ended, prints the job, and exits with 1 if the job
failed or was cancelled. It waits up to a minute for an API that is away. Ctrl-C ends the wait, not the
job.`,
		Example: `  codexctl trigger user-sync
  codexctl trigger user-sync --full --wait
  codexctl trigger project-sync --full --batch-size 500
  codexctl trigger welcome-mail --data '{"to": "a@example.com"}'
  id=$(codexctl trigger user-sync --output json | jq -r .jobId)`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: only(a.completeJobType),
	}
	flags := cmd.Flags()
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		payload, err := r.payload(flags.Changed("batch-size"), flags.Changed("data"))
		if err != nil {
			return usageError{err}
		}
		return a.trigger(ctx, api, args[0], payload, r.wait)
	})
	flags.BoolVar(&r.full, "full", false, "visit every record")
	flags.IntVar(&r.batchSize, "batch-size", 0, "records in one batch, from 1 to 10000 (default the workers' SYNC_BATCH_SIZE)")
	flags.StringVar(&r.data, "data", "", "the payload, as a `JSON` object")
	flags.BoolVarP(&r.wait, "wait", "w", false, "wait for the job's end")
	cmd.MarkFlagsMutuallyExclusive("data", "full")
	cmd.MarkFlagsMutuallyExclusive("data", "batch-size")
	complete(cmd, "batch-size")
	complete(cmd, "data")
	return cmd
}

// payload returns the payload that the flags say; nil for the server's defaults.
func (r request) payload(sized, given bool) (any, error) {
	if given {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(r.data), &object); err != nil || object == nil {
			return nil, errors.New(`--data was not a JSON object; it must be one, such as '{"to": "a@example.com"}'`)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(r.data)); err != nil {
			return nil, fmt.Errorf("reading --data: %w", err)
		}
		return json.RawMessage(compact.Bytes()), nil
	}
	if sized && r.batchSize < 1 {
		return nil, fmt.Errorf("--batch-size was %d; it must be 1 or more", r.batchSize)
	}
	if !r.full && !sized {
		return nil, nil
	}
	payload := client.SyncPayload{BatchSize: r.batchSize}
	if r.full {
		payload.SyncType = client.SyncFull
	}
	return payload, nil
}

func (a *app) trigger(ctx context.Context, api *client.Client, job string, payload any, wait bool) error {
	triggered, err := api.Trigger(ctx, job, payload)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; whether the job was triggered is not known")
	}
	if err != nil {
		return err
	}
	text := line(triggered.Message + ": " + triggered.JobID)
	if triggered.Coalesced {
		text += ", which waited already"
	}
	if !wait {
		return a.print(triggered, func(p *page) { p.line("%s", text) })
	}
	a.say("%s", text)
	return a.wait(ctx, api, triggered.JobID)
}
