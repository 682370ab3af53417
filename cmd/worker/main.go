// Command worker works on the runs that are enqueued; any number of them share the work.
package main

import (
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/program/worker"
)

func main() { worker.Main(codex.Types()...) }
