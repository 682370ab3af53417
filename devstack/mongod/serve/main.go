// Command serve runs the server for measurements until it is interrupted, and prints its URI.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/codex-api/codex-jobs/devstack/mongod"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	s, err := mongod.Start(os.TempDir(), mongod.Measured)
	if err != nil {
		return err
	}
	fmt.Println(s.URI())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return s.Stop()
}
