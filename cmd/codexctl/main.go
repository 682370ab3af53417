// Command codexctl triggers, watches and controls jobs from a terminal or a script, over the HTTP API.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/codex-api/codex-jobs/internal/cli"
	"github.com/codex-api/codex-jobs/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(cli.Run(ctx, cli.Program{Version: version.String(), Out: os.Stdout, Err: os.Stderr}, os.Args[1:]))
}
