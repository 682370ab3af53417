package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The command health, for people and for scripts that watch the system.

func (a *app) healthCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Show whether the system is healthy; exit with 1 if it is not",
		Long: `Show whether the API reaches Redis and MongoDB, whether Redis accepts writes, and whether a worker and the
schedules are live. If any of them is missing, the exit status is 1. A schedule that is switched off is not missing.`,
		Example: `  codexctl health
  codexctl health >/dev/null || echo 'look at it'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		h, err := api.Health(ctx)
		if err != nil {
			return err
		}
		if err := a.print(h, func(p *page) { showHealth(p, h) }); err != nil {
			return err
		}
		if !h.Healthy() {
			return failure{errors.New("not healthy: " + strings.Join(wrong(h), ", "))}
		}
		return nil
	})
	return cmd
}

func showHealth(p *page, h client.Health) {
	dependency := func(d client.Dependency) string {
		text := fmt.Sprintf("%s, %d ms", d.Status, d.ResponseTime)
		if d.Error != "" {
			text += ": " + line(d.Error)
		}
		return text
	}
	p.fields(
		"Status", h.Status,
		"Uptime", short(time.Duration(h.Uptime)*time.Second),
		"MongoDB", dependency(h.Database),
		"Redis", dependency(h.Redis),
		"Workers", strconv.Itoa(h.Jobs.Workers),
		"Schedulers", strconv.Itoa(h.Jobs.Schedulers),
		"Missing", strings.Join(h.Jobs.Missing, ", "),
		"Warnings", strings.Join(h.Jobs.Warnings, "; "),
		"Waiting", strings.Join(waiting(h), ", "),
	)
}

// waiting lists the jobs that wait, and what for.
func waiting(h client.Health) (list []string) {
	for _, w := range h.Jobs.Waiting {
		list = append(list, line(w.ID+": "+w.For))
	}
	return list
}

// wrong lists what makes the system unhealthy.
func wrong(h client.Health) []string {
	list := []string{"the status is " + line(h.Status)}
	if h.Status == client.StatusOK {
		list = nil
	}
	for _, what := range h.Jobs.Missing {
		list = append(list, line(what)+" is missing")
	}
	for _, what := range waiting(h) {
		list = append(list, what+" waits")
	}
	if len(list) == 0 {
		list = []string{"the jobs are not initialized"}
	}
	return list
}
