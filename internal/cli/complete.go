package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// What the shells complete besides commands and flags.

// completionTimeout is how long somebody who has pressed Tab is kept waiting for job IDs.
const completionTimeout = time.Second

// JobTypes are the job types that are shipped, for completion and for the rows of the status. Any name may be given:
// the server knows which there are.
var JobTypes = []string{"user-sync", "project-sync", "issue-sync"}

// complete completes the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // a programming error that every test would show
	}
}

// completeJobType completes the only argument of a command.
func completeJobType(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return JobTypes, cobra.ShellCompDirectiveNoFileComp
}

// completeID completes the only argument of a command with the IDs of jobs in one of the states, of those that the
// server lists first.
func (a *app) completeID(states ...client.State) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		api, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		filter := client.Filter{PageSize: maxPageSize}
		if len(states) == 1 {
			filter.State = states[0]
		}
		list, err := api.Jobs(ctx, filter)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []string
		for _, j := range list.Jobs {
			if slices.Contains(states, j.State) {
				ids = append(ids, cobra.CompletionWithDesc(j.ID, line(string(j.State)+" "+brief(j.Data))))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
