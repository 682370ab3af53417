package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The job types.

func (a *app) jobTypesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job-types",
		Short: "Show the job types, and what a trigger of each can say",
		Long: `Show the job types that the server knows, their live schedules, and the fields that trigger --data can
have for each.`,
		Example: `  codexctl job-types
  codexctl job-types --output json | jq -r '.jobTypes[].name'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		types, err := api.JobTypes(ctx)
		if err != nil {
			return err
		}
		return a.print(client.JobTypeList{JobTypes: types}, func(p *page) { listJobTypes(p, types) })
	})
	return cmd
}

func listJobTypes(p *page, types []client.JobType) {
	var rows [][]string
	for _, t := range types {
		schedule := none
		if t.Schedule != nil {
			schedule = *t.Schedule
		}
		var fields []string
		for _, f := range t.Fields {
			fields = append(fields, f.Name+": "+f.Allowed+more(f))
		}
		rows = append(rows, []string{t.Name, t.Title, schedule, yesNo(t.Paused), strconv.Itoa(t.Attempts), orNone(strings.Join(fields, "; "))})
	}
	p.table([]string{"JOB", "TITLE", "SCHEDULE", "PAUSED", "ATTEMPTS", "DATA"}, rows)
}

// more says what else is known of a field.
func more(f client.Field) string {
	switch {
	case f.Required:
		return " (required)"
	case f.Default != nil:
		return " (default " + string(f.Default) + ")"
	default:
		return ""
	}
}
