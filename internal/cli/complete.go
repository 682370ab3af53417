package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// What the shells complete besides commands and flags.

// completionTimeout is how long a user who has pressed Tab waits for the server.
const completionTimeout = time.Second

// complete completes the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	completeFlag(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func completeFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // a programming error that every test would show
	}
}

// ask returns what f asks the server for, in that order; nothing when the server does not answer in time.
func (a *app) ask(cmd *cobra.Command, f func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	api, err := a.connect()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	values, err := f(ctx, api)
	if err != nil {
		return nil, directive
	}
	return values, directive
}

// completeJobType completes the value of a flag with the server's job types.
func (a *app) completeJobType(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, func(ctx context.Context, api *client.Client) ([]string, error) {
		types, err := api.JobTypes(ctx)
		var names []string
		for _, t := range types {
			names = append(names, cobra.CompletionWithDesc(t.Name, line(t.Title)))
		}
		return names, err
	})
}

// completeJobTypeOrAll is completeJobType for what takes all of them at once, too.
func (a *app) completeJobTypeOrAll(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	values, directive := a.completeJobType(cmd, args, toComplete)
	if len(values) > 0 {
		values = append(values, cobra.CompletionWithDesc(client.AllJobs, "All job types"))
	}
	return values, directive
}

// completeID completes an argument with the IDs of jobs in one of the states, of those that the server lists first.
func (a *app) completeID(states ...client.State) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.ask(cmd, func(ctx context.Context, api *client.Client) ([]string, error) {
			filter := client.Filter{PageSize: maxPageSize}
			if len(states) == 1 {
				filter.State = states[0]
			}
			list, err := api.Jobs(ctx, filter)
			var ids []string
			for _, j := range list.Jobs {
				if slices.Contains(states, j.State) {
					ids = append(ids, cobra.CompletionWithDesc(j.ID, line(string(j.State)+" "+brief(j.Data))))
				}
			}
			return ids, err
		})
	}
}

// only completes the only argument of a command.
func only(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, args, toComplete)
	}
}
