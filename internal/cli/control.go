package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The commands about all jobs of a type: pause, resume and cleanup.

// maxGrace is the longest grace period that the API takes.
const maxGrace = 8760 * time.Hour

func (a *app) pauseCommand() *cobra.Command {
	return a.controlCommand("pause", "Keep jobs from starting",
		"Keep jobs of the type, or of all types, from starting. An active job goes on to its end; triggers and the\nschedule still enqueue. Without JOB it is the server's first job type, the user sync.",
		(*client.Client).Pause)
}

func (a *app) resumeCommand() *cobra.Command {
	return a.controlCommand("resume", "Let jobs start again",
		"End a pause: jobs that wait can start. Without JOB it is the server's first job type, the user sync.",
		(*client.Client).Resume)
}

// message is the answer of a command that has no other data.
type message struct {
	Message string `json:"message"`
}

func (a *app) controlCommand(name, short, long string, do func(*client.Client, context.Context, string) (string, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:               name + " [JOB|all]",
		Short:             short,
		Long:              long,
		Example:           fmt.Sprintf("  codexctl %[1]s\n  codexctl %[1]s project-sync\n  codexctl %[1]s all", name),
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: only(a.completeJobTypeOrAll),
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		var job string
		if len(args) > 0 {
			job = args[0]
		}
		done, err := do(api, ctx, job)
		if err != nil {
			return err
		}
		return a.print(message{done}, func(p *page) { p.line("%s", line(done)) })
	})
	return cmd
}

func (a *app) cleanupCommand() *cobra.Command {
	var job string
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove jobs that ended some time ago",
		Long: `Remove the completed and failed jobs of one job type, or of all, that ended longer ago than the grace
period. They are gone for good.`,
		Example: `  codexctl cleanup
  codexctl cleanup --grace 48h --job project-sync
  codexctl cleanup --job all
  codexctl cleanup --grace 0s                      remove all that have ended`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		if grace < 0 || grace > maxGrace {
			return usageError{fmt.Errorf("--grace was %s; it must be from 0s to %dh", grace, int(maxGrace.Hours()))}
		}
		removed, err := api.Cleanup(ctx, job, grace)
		if err != nil {
			return err
		}
		return a.print(removed, func(p *page) {
			p.line("%s: %d completed, %d failed", line(removed.Message), removed.Completed, removed.Failed)
		})
	})
	cmd.Flags().DurationVar(&grace, "grace", 24*time.Hour, "how long ago a job must have ended, such as 48h and 30m")
	cmd.Flags().StringVar(&job, "job", "", "a job `type`, or all (default the first one, the user sync)")
	completeFlag(cmd, "job", a.completeJobTypeOrAll)
	return cmd
}
