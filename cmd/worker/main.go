// Command worker works on the runs that are enqueued; any number of them share the work.
package main

import (
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/programs/worker"
)

func main() { daemon.Main(worker.Program) }
