package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The schedules.

func (a *app) schedulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedules",
		Short: "Show the schedules and their next ticks",
		Long: `Show the live schedule of each job type that has one: its next tick, and the latest tick that was
handled. Cron expressions are in UTC.`,
		Example: `  codexctl schedules
  codexctl schedules --output json | jq -r '.schedules[].next'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		list, err := api.Schedules(ctx)
		if err != nil {
			return err
		}
		return a.print(client.ScheduleList{Schedules: list}, func(p *page) { listSchedules(p, list) })
	})
	return cmd
}

func listSchedules(p *page, list []client.Schedule) {
	if len(list) == 0 {
		p.line("No live schedules: no scheduler runs, or none is set.")
		return
	}
	var rows [][]string
	for _, s := range list {
		previous := none
		if s.Previous != nil {
			previous = orNone(p.moment(s.Previous.Time))
		}
		rows = append(rows, []string{s.Job, s.Spec, orNone(p.moment(s.Next.Time)), previous, yesNo(s.Paused)})
	}
	p.table([]string{"JOB", "SCHEDULE", "NEXT", "PREVIOUS", "PAUSED"}, rows)
}
