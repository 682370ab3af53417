// Command bench measures codex-jobs. It loads users, runs the real programs on them and prints one table. Beside each figure
// stands one to compare it with, measured in the same run on the same servers.
//
// A figure alone says more about the machine than about the product; a ratio also holds on other machines. "make bench" runs
// it under devstack, and it takes its Redis and MongoDB from the environment. It is no load test: it measures how fast
// things are, not when they break.
//
//	bench -bin DIR [flags]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The exit statuses.
const (
	exitFailure = 1
	exitUsage   = 2
)

const usage = `Usage: bench -bin DIR [flags]

Measures codex-jobs and prints one table on stdout. Each figure has beside it what it is compared with, measured in the
same run on the same servers. With the usual sizes that takes some minutes. Run it with make bench:

  make bench                                 on a server with the costs of a real MongoDB
  make bench EMBEDDED=1                      on mongod if it is installed, else on the embedded FerretDB
  make bench ARGS='-only sync,latency'       some of it
  MONGODB_URI=mongodb://host make bench      on a MongoDB of yours, in a database of the bench's own
  REDIS_HOST=host REDIS_DB=9 make bench      on a Redis of yours, in a database that must be empty
  make bench ARGS='-compare v1.0.0'          another version beside this one

What is measured:
`

// arguments are the arguments of the command line.
type arguments struct {
	bin     string
	json    bool
	big     bool
	check   bool
	compare string // a revision
	only    []section
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the bench, and returns the exit status.
func run(args []string, out io.Writer, errOut *os.File) int {
	a, err := parse(args, errOut)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(errOut, "bench: %v (see bench -help)\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	r, err := measure(ctx, a, newProgress(errOut))
	if err != nil {
		r.Error = err.Error()
	}
	if len(r.Figures) > 0 || err == nil {
		write := r.table
		if a.json {
			write = r.json
		}
		if failed := write(out); failed != nil {
			err = errors.Join(err, fmt.Errorf("printing the figures: %w", failed))
		}
	}
	if err != nil {
		fmt.Fprintf(errOut, "bench: %v\n", err)
		return exitFailure
	}
	return 0
}

// parse reads the command line. It prints the help if that is asked for.
func parse(args []string, errOut io.Writer) (arguments, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var a arguments
	var only string
	flags.StringVar(&a.bin, "bin", "", "the `directory` with the programs api, worker and slowworker")
	flags.BoolVar(&a.json, "json", false, "print JSON instead of the table")
	flags.BoolVar(&a.big, "big", false, "measure the sync with a million users, too: some minutes more, and not on the embedded FerretDB")
	flags.BoolVar(&a.check, "check", false, "only check in half a minute that a sync is not far slower than it was, and fail if it is")
	flags.StringVar(&a.compare, "compare", "", "measure the sync of this `revision` of the repository, too, in turns with this one")
	flags.StringVar(&only, "only", "", "measure only these, a `list` such as sync,latency")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(errOut, usage)
		for _, s := range sections {
			fmt.Fprintf(errOut, "  %-9s %s\n", s.name, s.summary)
		}
		fmt.Fprint(errOut, "\nFlags:\n")
		flags.SetOutput(errOut)
		flags.PrintDefaults()
	}
	if err != nil {
		return arguments{}, err
	}
	if flags.NArg() > 0 {
		return arguments{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if a.bin == "" {
		return arguments{}, errors.New("-bin is missing: the directory with the programs")
	}
	if a.only, err = choose(only); err != nil {
		return arguments{}, err
	}
	a.bin, err = filepath.Abs(a.bin)
	return a, err
}

// choose returns the sections of a list of names, in the order in which they are measured; all for "".
func choose(list string) ([]section, error) {
	if list == "" {
		return sections, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return nil, fmt.Errorf("-only: there is no %q; it must be a list of %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	var chosen []section
	for _, s := range sections {
		if slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}
