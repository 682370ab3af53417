// Package worker is the worker program of a system, for a main of a team's own.
package worker

import (
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/programs/worker"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// Main runs a worker of a system with the job types until SIGTERM or SIGINT. It serves the command line, reads its settings from
// the environment, and ends the process. All programs of a system must have the same job types.
func Main(types ...job.Type) {
	all := jobtype.All(types)
	daemon.Main(worker.New(all), all)
}
