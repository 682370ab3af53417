// Command serve runs the server for measurements until it is interrupted, and prints its URI.
package main

import (
	"context"
	"flag"
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
	costs := mongod.Measured
	flag.DurationVar(&costs.Key, "key", costs.Key, "the processor time for each index key")
	flag.DurationVar(&costs.Document, "document", costs.Document, "the processor time for each document that is read")
	flag.DurationVar(&costs.Update, "update", costs.Update, "the processor time for each update")
	flag.Parse()
	s, err := mongod.Start(os.TempDir(), costs)
	if err != nil {
		return err
	}
	fmt.Println(s.URI())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return s.Stop()
}
