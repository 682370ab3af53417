// Package scheduler is the scheduler program of a system, for a main of a team's own.
package scheduler

import (
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/jobtype"
	"github.com/codex-api/codex-jobs/internal/programs/scheduler"
	"github.com/codex-api/codex-jobs/pkg/job"
)

// Main runs the scheduler of a system with the job types until SIGTERM or SIGINT. It serves the command line, reads its settings from
// the environment, and ends the process. All programs of a system must have the same job types.
func Main(types ...job.Type) {
	daemon.Main(scheduler.Program, jobtype.All(types))
}
