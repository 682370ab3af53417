// Command worker works on the runs that are enqueued; any number of them share the work.
package main

import (
	"context"

	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/worker"
)

func main() {
	daemon.Main(daemon.Program{
		Name: "worker", Summary: "works on the runs that are enqueued; any number of workers share them",
		Run: func(ctx context.Context, process *daemon.Process) error {
			return worker.Serve(ctx, process, syncrun.Stamping{})
		},
		Healthy: daemon.LiveHere(jobs.RoleWorker), AdminPort: config.AdminPortWorker,
	})
}
