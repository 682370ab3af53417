package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The processes that live.

func (a *app) processesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "processes",
		Short: "Show which workers and schedulers live, and what they do",
		Long: `Show which workers and schedulers live, when each was last heard of, and what each worker works on: jobs, and
ranges of large ones, counted from 1. A process that was killed is shown for up to 10 more seconds.`,
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
			listProcesses(p, processes)
		})
	})
	return cmd
}

func listProcesses(p *page, processes []client.Process) {
	if len(processes) == 0 {
		p.line("No worker and no scheduler.")
		return
	}
	var rows [][]string
	for _, process := range processes {
		since := none
		if !process.StartedAt.IsZero() {
			since = short(p.now.Sub(process.StartedAt.Time))
		}
		rows = append(rows, []string{process.Role, process.ID, p.moment(process.LastSeen.Time), since, orNone(process.Version), orNone(doing(process))})
	}
	p.table([]string{"ROLE", "ID", "LAST SEEN", "RUNS FOR", "VERSION", "WORKS ON"}, rows)
}

// doing says what a worker works on, with each job once; "" where that is nothing. The ranges of a job are counted from 1, as in the
// history.
func doing(process client.Process) string {
	var order []string
	ranges := make(map[string][]string)
	for _, d := range process.Doing {
		if _, known := ranges[d.Job]; !known {
			order = append(order, d.Job)
			ranges[d.Job] = nil
		}
		if d.Range != nil {
			ranges[d.Job] = append(ranges[d.Job], strconv.Itoa(*d.Range+1))
		}
	}
	for i, job := range order {
		switch list := ranges[job]; len(list) {
		case 0:
		case 1:
			order[i] += " range " + list[0]
		default:
			order[i] += " ranges " + strings.Join(list, ", ")
		}
	}
	return strings.Join(order, "; ")
}
