package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The notifications.

func (a *app) notifyTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify-test",
		Short: "Send a test to the receiver of notifications",
		Long: `Send a test to the receiver of notifications, which the workers' NOTIFY_URL names, and show what it
answers. A worker sends it, once. It exits with 1 if the receiver does not take it.`,
		Example: `  codexctl notify-test`,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		test, err := api.TestNotification(ctx)
		if err != nil {
			return err
		}
		if err := a.print(test, func(p *page) { p.line("%s", line(test.Message)) }); err != nil {
			return err
		}
		if !test.Delivered {
			return failure{errors.New("the test was not delivered")}
		}
		return nil
	})
	return cmd
}
