// Command chaos runs the whole of codex-jobs, breaks its processes, its servers and the ways between them at random for a
// while, and then says which of the product's promises were kept.
//
// Each fault has a test of its own; chaos tests combinations that no test thinks of. A seed decides what is broken when, so
// that a run which found something can be repeated, as far as the machine's timing allows. "make chaos" runs it under
// devstack. It takes its MongoDB from the environment, and starts a Redis of its own, because it kills that, too.
//
//	chaos -bin DIR [flags]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// The exit statuses.
const (
	exitFailure = 1
	exitUsage   = 2
)

const usage = `Usage: chaos -bin DIR [flags]

Runs two APIs, three schedulers and three workers on a Redis of its own and on the MongoDB that MONGODB_URI names, and
another deployment in the same Redis. It breaks things at random, and checks that the product keeps its promises:
no tick missed or doubled, no acknowledged run lost or run twice, no attempt charged for a fault, every record synchronised,
no run of one deployment in the other, every answer in time, nothing left in Redis, no process dead. Run it with make chaos:

  make chaos                                 two minutes with a new seed, and up to three more until all is quiet
  make chaos ARGS='--for 10m'                longer
  make chaos ARGS='--for 3m --seed 7'        the faults of a former run again

It needs redis-server. Each fault is reported on stderr when it is made, a table on stdout at the end. The exit status is 1
when a promise was broken; then the logs of all processes are kept, and the last lines say where. Ctrl-C ends everything.

Flags:
`

const (
	defaultLength = 2 * time.Minute
	// minLength is the least time that has room for a fault.
	minLength = 10 * time.Second
)

// arguments are the arguments of the command line.
type arguments struct {
	bin    string
	length time.Duration
	seed   uint64
	level  string
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs chaos, and returns the exit status.
func run(args []string, out, errOut io.Writer) int {
	a, err := parse(args, errOut)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(errOut, "chaos: %v (see chaos --help)\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	r, err := runChaos(ctx, a, errOut)
	if r != nil {
		fmt.Fprint(out, r.String())
	}
	if err != nil {
		fmt.Fprintf(errOut, "chaos: seed %d: %v\n", a.seed, err)
		return exitFailure
	}
	return 0
}

// parse reads the command line. It prints the help if that is asked for.
func parse(args []string, errOut io.Writer) (arguments, error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var a arguments
	flags.StringVar(&a.bin, "bin", "", "the `directory` with the programs api, scheduler and worker")
	flags.DurationVar(&a.length, "for", defaultLength, "how long things are broken, a `duration` such as 3m")
	flags.Uint64Var(&a.seed, "seed", 0, "the `number` that decides what is broken when (default: a new one)")
	flags.StringVar(&a.level, "log", "debug", "the `level` at which the programs log")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(errOut, usage)
		flags.SetOutput(errOut)
		flags.PrintDefaults()
	}
	if err != nil {
		return arguments{}, err
	}
	switch {
	case flags.NArg() > 0:
		return arguments{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case a.bin == "":
		return arguments{}, errors.New("-bin is missing: the directory with the programs")
	case a.length < minLength:
		return arguments{}, fmt.Errorf("-for was %s; it must be a duration of at least %s", a.length, minLength)
	}
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == "seed" })
	if !given {
		a.seed = uint64(rand.Uint32()) // short enough to be typed
	}
	a.bin, err = filepath.Abs(a.bin)
	return a, err
}
