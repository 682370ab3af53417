// Command api is the API of the example.
package main

import (
	"github.com/codex-api/codex-jobs/pkg/program/api"

	"example.com/directory/jobs"
)

func main() { api.Main(jobs.Types()...) }
