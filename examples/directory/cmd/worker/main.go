// Command worker is a worker of the example.
package main

import (
	"github.com/codex-api/codex-jobs/pkg/program/worker"

	"example.com/directory/jobs"
)

func main() { worker.Main(jobs.Types()...) }
