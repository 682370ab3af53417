// Command api serves the HTTP API and the dashboard.
package main

import (
	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/pkg/program/api"
)

func main() { api.Main(codex.Types()...) }
