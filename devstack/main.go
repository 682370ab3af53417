// Command devstack runs a command with a Redis and a MongoDB of its own, and stops both after it.
//
// With it codex-jobs can be tried and tested on a machine that has neither. If redis-server or mongod is installed, devstack
// starts it on a free port in a temporary directory. If not, devstack serves the same protocol itself, with miniredis and
// FerretDB. Servers that the environment names it uses as they are. It is a tool for development and tests: it removes all
// data at the end. It is a module of its own, so that the product does not depend on those servers.
//
//	devstack [flags] -- COMMAND [ARG...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// commandGrace is how long COMMAND may take to end after a SIGTERM.
const commandGrace = 20 * time.Second

// The exit statuses of devstack itself, as shells use them.
const (
	exitFailure         = 1
	exitUsage           = 2
	exitCommandNotFound = 127
	exitSignalBase      = 128
)

const usage = `Usage: devstack [flags] -- COMMAND [ARG...]

Runs COMMAND with a throwaway Redis and MongoDB, stops them after it and exits with its status.

Redis is the one that REDIS_HOST or REDIS_PORT names, else redis-server from PATH, else miniredis in this process.
MongoDB is the one that MONGODB_URI names, else with --measuring a server in this process with the costs of a real one, which knows
only what the product asks, else mongod from PATH, else FerretDB in this process.

COMMAND gets REDIS_HOST, REDIS_PORT, REDIS_PASSWORD, REDIS_DB, MONGODB_URI and MONGODB_DATABASE, and
  DEVSTACK_REDIS    external, redis-server or miniredis
  DEVSTACK_MONGODB  external, measuring, mongod or ferretdb
and with FerretDB SYNC_BULK_SIZE=10, SYNC_WRITERS=1 and SYNC_RANGE_SIZE=1000000, unless they are set.

Flags:
`

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// run runs devstack, and returns the exit status.
func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("devstack", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	requireRedis := flags.Bool("require-redis-server", false, "fail rather than fall back to miniredis")
	measuring := flags.Bool("measuring", false, "serve a MongoDB for measurements: all in memory, and with the costs of a real one")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	command := flags.Args()
	if len(command) == 0 {
		fmt.Fprintln(stderr, "devstack: no COMMAND given (see devstack --help)")
		return exitUsage
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		fmt.Fprintf(stderr, "devstack: looking for COMMAND: %v\n", err)
		return exitCommandNotFound
	}

	signals := make(chan os.Signal, 8)
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(sig) { // under nohup, where COMMAND must ignore it as well
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)

	s, sig, err := startUnlessSignalled(signals, settings{getenv: os.Getenv, requireRedisServer: *requireRedis, measuring: *measuring, log: stderr})
	if sig != 0 {
		return exitSignalBase + int(sig)
	}
	if err != nil {
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		return exitFailure
	}
	defer s.stop()
	fmt.Fprintf(stderr, "devstack: %s, %s\n", s.redis.description, s.mongodb.description)

	cmd := exec.Command(path)
	cmd.Args = command
	cmd.Env = append(os.Environ(), s.environment()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// In devstack's own group, so that the terminal's Ctrl-C reaches it. It gets a SIGTERM when devstack is killed, because
	// its servers end then.
	process, err := procs.Start(cmd, procs.Options{Name: command[0], Foreground: true})
	if err != nil {
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		return exitFailure
	}
	if err := attend(process, s, signals); err != nil {
		fmt.Fprintf(stderr, "devstack: %v\n", err)
		return exitFailure
	}
	return process.ExitCode()
}

// startUnlessSignalled starts the servers. On a signal it stops those that it has started, and returns the signal.
func startUnlessSignalled(signals <-chan os.Signal, set settings) (*stack, syscall.Signal, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type result struct {
		stack *stack
		err   error
	}
	started := make(chan result, 1)
	go func() {
		s, err := startStack(ctx, set)
		started <- result{s, err}
	}()
	select {
	case r := <-started:
		return r.stack, 0, r.err
	case sig := <-signals:
		cancel()
		if r := <-started; r.stack != nil {
			r.stack.stop()
		}
		return nil, sig.(syscall.Signal), nil
	}
}

// attend waits for COMMAND to end. It passes SIGTERM on; the terminal sends SIGINT and SIGHUP to COMMAND itself. When a
// server ends by itself, attend ends COMMAND, and returns that as an error.
func attend(process *procs.Process, s *stack, signals <-chan os.Signal) error {
	var failure error
	var overdue <-chan time.Time
	redisEnded, mongodbEnded := s.redis.ended, s.mongodb.ended
	end := func() {
		_ = process.Terminate() // if that fails, it is killed when overdue
		if overdue == nil {
			overdue = time.After(commandGrace)
		}
	}
	for {
		select {
		case <-process.Done():
			return failure
		case sig := <-signals:
			if sig == syscall.SIGTERM {
				end()
			}
		case <-overdue:
			process.Kill()
		case <-redisEnded:
			failure, redisEnded = s.redis.failure(), nil
			end()
		case <-mongodbEnded:
			failure, mongodbEnded = s.mongodb.failure(), nil
			end()
		}
	}
}
