package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The processes that live.

func (a *app) processesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "processes",
		Short: "Show which workers and schedulers live",
		Long: `Show which workers and schedulers live, and when each was last heard of. One that was killed is shown for up to
10 more seconds.`,
		Example: `  codexctl processes
  codexctl processes --output json | jq -r '.processes[] | select(.role == "worker").id'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		processes, err := api.Processes(ctx)
		if err != nil {
			return err
		}
		return a.print(client.ProcessList{Processes: processes}, func(p *page) {
			var rows [][]string
			for _, process := range processes {
				rows = append(rows, []string{process.Role, process.ID, p.moment(process.LastSeen.Time)})
			}
			p.table([]string{"ROLE", "ID", "LAST SEEN"}, rows)
		})
	})
	return cmd
}
