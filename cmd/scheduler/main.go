// Command scheduler enqueues the scheduled runs.
package main

import (
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/program/scheduler"
)

func main() { scheduler.Main(codex.Types()...) }
