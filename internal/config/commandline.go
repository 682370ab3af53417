package config

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/version"
)

// The exit statuses of a program that does not start.
const (
	// ExitOK is the status after --help and --version.
	ExitOK = 0
	// ExitUsage is the status when a setting or the command line is wrong.
	ExitUsage = 2
)

// FromCommandLine serves --help and --version, and otherwise loads the settings for the job types of the registry. When the
// program must not run, it writes why to out or errOut, and returns false and the exit status.
func FromCommandLine(name, summary string, registry *tasks.Registry, args []string, out, errOut io.Writer) (c Config, status int, ok bool) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "print the version and exit")
	checkHealth := flags.Bool("healthy", false, "exit with 0 if the process of this name on this host is healthy")
	var tried, records string
	if name == worker {
		flags.StringVar(&tried, tryEndpoint, "", "post a batch of records to the endpoint of a sync")
		flags.StringVar(&records, "records", "", "with --"+tryEndpoint+": a file with the records")
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(out, name, summary, registry)
		return c, ExitOK, false
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "%s: %v; see %s --help\n", name, err, name)
		return c, ExitUsage, false
	case flags.NArg() > 0:
		_, _ = fmt.Fprintf(errOut, "%s: unexpected argument %q; see %s --help\n", name, flags.Arg(0), name)
		return c, ExitUsage, false
	case *showVersion:
		_, _ = fmt.Fprintln(out, name, version.String())
		return c, ExitOK, false
	}
	if c, err = Load(registry); err != nil {
		_, _ = fmt.Fprintf(errOut, "%s: these settings are wrong:\n  %s\n", name, strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return c, ExitUsage, false
	}
	c.CheckHealth, c.Program = *checkHealth, name
	if records != "" && tried == "" {
		_, _ = fmt.Fprintf(errOut, "%s: --records is set without --%s; set both or neither\n", name, tryEndpoint)
		return c, ExitUsage, false
	}
	if _, has := c.Endpoints[tried]; tried != "" && !has {
		_, _ = fmt.Fprintf(errOut, "%s: --%s %s: %s\n", name, tryEndpoint, tried, noEndpoint(registry, tried))
		return c, ExitUsage, false
	}
	c.TryEndpoint, c.TryRecords = tried, records
	return c, ExitOK, true
}

// noEndpoint says why a job type has no endpoint.
func noEndpoint(registry *tasks.Registry, jobType string) string {
	var can []string
	for _, d := range registry.All() {
		if d.Endpoint {
			can = append(can, d.Name)
		}
	}
	if slices.Contains(can, jobType) {
		return "it has no endpoint; set " + SettingPrefix(jobType) + "_URL"
	}
	return "it must be one of the syncs without work of their own: " + strings.Join(can, ", ")
}

// tryEndpoint is the flag of the worker that tries an endpoint.
const tryEndpoint = "try-endpoint"

func usage(out io.Writer, name, summary string, registry *tasks.Registry) {
	more := ""
	all := registry.All()
	if i := slices.IndexFunc(all, func(d tasks.Definition) bool { return d.Endpoint }); i >= 0 && name == worker {
		more = "  %[1]s --" + tryEndpoint + " " + all[i].Name + " [--records FILE]\n" +
			"                    post a signed batch to " + SettingPrefix(all[i].Name) + "_URL, as a run would, and show what would be written; of made-up\n" +
			"                    records, or of those in the file, which has a document in Extended JSON in each line\n"
	}
	_, _ = fmt.Fprintf(out, "%[1]s: %[2]s\n\nUsage:\n"+
		"  %[1]s            run\n"+
		"  %[1]s --healthy  exit with 0 if the %[1]s that runs on this host, with these settings, is healthy\n"+
		"  %[1]s --version  print the version\n"+more+"\n"+
		"Settings are environment variables, or lines of a file .env in the working directory. These are the ones that the %[1]s uses:\n\n", name, summary)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range Settings(registry) {
		if slices.Contains(s.Programs, name) {
			_, _ = fmt.Fprintf(w, "  %s\t%s\t%s\n", s.Name, cmp.Or(s.Default, "-"), s.Purpose)
		}
	}
	_ = w.Flush()
}
