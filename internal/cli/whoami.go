package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// Who the server takes the caller for.

func (a *app) whoamiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show what the API key may do",
		Long:  "Show the name of the API key that is used, and whether it may change something.",
		Example: `  codexctl whoami
  codexctl whoami --output json | jq .write`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		who, err := api.Whoami(ctx)
		if err != nil {
			return err
		}
		return a.print(who, func(p *page) {
			p.fields("Key", orNone(who.Key), "May change", yesNo(who.Write))
		})
	})
	return cmd
}
