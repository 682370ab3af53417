// Command slowworker is a worker with slow work: it waits before it stamps a batch, and in the place of sending a mail, as if it
// called another service.
//
// The bench measures with it how several workers share work. BENCH_BATCH_WAIT is how long a batch waits, by default 20ms. Its
// other settings are the worker's.
package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/codex-api/codex-jobs/devstack/bench/slowjobs"
	"github.com/codex-api/codex-jobs/pkg/program/worker"
)

func main() {
	wait, err := time.ParseDuration(cmp.Or(os.Getenv("BENCH_BATCH_WAIT"), "20ms"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "BENCH_BATCH_WAIT:", err)
		os.Exit(2)
	}
	worker.Main(slowjobs.Types(wait)...)
}
