// Command api serves the HTTP API and the dashboard.
package main

import (
	"github.com/codex-api/codex-jobs/internal/daemon"
	"github.com/codex-api/codex-jobs/internal/programs/api"
)

func main() { daemon.Main(api.Program) }
