// Command scheduler enqueues the scheduled runs.
package main

import (
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/programs/scheduler"
)

func main() { daemon.Main(scheduler.Program) }
