package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The command trigger, and the payload that its flags make.

// request is the flags of trigger.
type request struct {
	full      bool
	batchSize int
	data      string
	runAt     string
	delay     time.Duration
	wait      bool
}

func (a *app) triggerCommand() *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "trigger JOB",
		Short: "Start a job; with --wait, wait for its end",
		Long: `Enqueue a job. A worker runs it as soon as it may: of a sync, one job is active at a time. When a job of the same kind
already waits, that job serves the trigger. A synchronisation is incremental unless --full is given.
"codexctl job-types" lists the job types, and the fields that --data can have for each.

With --delay or --run-at the job is one of its own, delayed until its time. "codexctl cancel" removes it.

With --wait it shows the progress until the job has ended, prints the job, and exits with 1 if the job
failed or was cancelled. It waits up to a minute for an API that is away. Ctrl-C ends the wait, not the
job.`,
		Example: `  codexctl trigger user-sync
  codexctl trigger user-sync --full --wait
  codexctl trigger project-sync --full --batch-size 500
  codexctl trigger user-sync --delay 10m
  codexctl trigger user-sync --full --run-at 2026-11-24T04:50:00Z
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
		options, err := r.start(flags.Changed("run-at"), flags.Changed("delay"))
		if err != nil {
			return usageError{err}
		}
		return a.trigger(ctx, api, args[0], payload, r.wait, options...)
	})
	flags.BoolVar(&r.full, "full", false, "visit every record")
	flags.IntVar(&r.batchSize, "batch-size", 0, "records in one batch, from 1 to 10000 (default the workers' SYNC_BATCH_SIZE)")
	flags.StringVar(&r.data, "data", "", "the payload, as a `JSON` object")
	flags.DurationVar(&r.delay, "delay", 0, "start the job after a time, such as 90s and 12h")
	flags.StringVar(&r.runAt, "run-at", "", "start the job at an `instant`, such as 2026-11-24T04:50:00Z")
	flags.BoolVarP(&r.wait, "wait", "w", false, "wait for the job's end")
	cmd.MarkFlagsMutuallyExclusive("data", "full")
	cmd.MarkFlagsMutuallyExclusive("data", "batch-size")
	cmd.MarkFlagsMutuallyExclusive("delay", "run-at")
	complete(cmd, "batch-size")
	complete(cmd, "data")
	complete(cmd, "delay")
	complete(cmd, "run-at")
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

// start returns the options that say when the job starts. The server says how far ahead that can be.
func (r request) start(at, after bool) (options []client.TriggerOption, err error) {
	if at {
		instant, err := time.Parse(time.RFC3339, r.runAt)
		if err != nil {
			return nil, fmt.Errorf("--run-at was %q; it must be an instant with a zone, such as 2026-11-24T04:50:00Z or "+
				"2026-11-24T05:50:00+01:00", r.runAt)
		}
		options = append(options, client.RunAt(instant))
	}
	if after {
		if r.delay < 0 {
			return nil, fmt.Errorf("--delay was %s; it must be 0s or more", r.delay)
		}
		options = append(options, client.Delay(r.delay))
	}
	return options, nil
}

func (a *app) trigger(
	ctx context.Context, api *client.Client, job string, payload any, wait bool, options ...client.TriggerOption,
) error {
	triggered, err := api.Trigger(ctx, job, payload, options...)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted; whether the job was triggered is not known")
	}
	if err != nil {
		return err
	}
	text := line(triggered.Message + ": " + triggered.JobID)
	if triggered.Coalesced {
		text += ", which was there already"
	}
	if !triggered.RunAt.IsZero() {
		text += ", which starts " + date(triggered.RunAt.Time)
	}
	if !wait {
		return a.print(triggered, func(p *page) { p.line("%s", text) })
	}
	a.say("%s", text)
	return a.wait(ctx, api, triggered.JobID)
}
