// Command scheduler is the scheduler of the example.
package main

import (
	"github.com/codex-api/codex-jobs/pkg/program/scheduler"

	"example.com/directory/jobs"
)

func main() { scheduler.Main(jobs.Types()...) }
