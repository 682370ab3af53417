// Command directory stands in for the company's directory: see package standin.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"example.com/directory/standin"
)

// grace is how long requests that have begun may take at the end.
const grace = 5 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "directory: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	var o standin.Options
	addr := flag.String("addr", "127.0.0.1:4100", "the `address` to listen on")
	flag.DurationVar(&o.Latency, "latency", 20*time.Millisecond, "how long each answer takes")
	flag.IntVar(&o.Limit, "limit", 5, "how many calls for users are allowed in any second; 0 is no limit")
	flag.DurationVar(&o.Every, "every", 0, "how often the users change; 0 is never")
	flag.Func("unknown", "`IDs` of users who are not known, separated by commas", list(&o.Unknown))
	flag.Func("broken", "`IDs` of users of whom it says nonsense, separated by commas", list(&o.Broken))
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", *addr, err)
	}
	server := &http.Server{Handler: standin.New(o), ReadHeaderTimeout: grace}
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	log.Info("Directory ready", "addr", listener.Addr().String(), "limit", o.Limit)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping: %w", err)
	}
	return nil
}

// list reads a list with commas.
func list(to *[]string) func(string) error {
	return func(s string) error {
		*to = strings.Split(s, ",")
		return nil
	}
}
