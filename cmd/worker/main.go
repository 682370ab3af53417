// Command worker works on the runs that are enqueued; any number of them share the work.
package main

import (
	"context"
	"log/slog"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func main() {
	daemon.Main(daemon.Program{
		Name: "worker", Summary: "works on the runs that are enqueued; any number of workers share them",
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			return worker.Serve(ctx, cfg, log, syncrun.Stamping{})
		},
		Healthy: daemon.LiveHere(jobs.RoleWorker),
	})
}
