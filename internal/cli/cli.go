package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// What all commands have in common: their root, their errors and the exit status.

// The exit statuses, which scripts rely on.
const (
	exitOK = 0
	// exitFailed is the status when a job failed, or when the system is not healthy.
	exitFailed      = 1
	exitUsage       = 2
	exitServer      = 3
	exitInterrupted = 130
)

const exitHelp = `Exit status:
  0    done
  1    with --wait: the job failed or was cancelled; with --failed, --waiting: some jobs are left;
       health: the system is not healthy; notify-test: it was not delivered; or the output could not
       be written
  2    wrong usage: the command line, the configuration file, or a file that it names
  3    the server could not be reached, or answered with an error
  130  interrupted (Ctrl-C, SIGTERM)`

// Program is what codexctl needs from its process.
type Program struct {
	// Version is the release.
	Version string
	// Out takes the result, Err everything else: errors and progress.
	Out, Err io.Writer
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// Poll is the pause between two requests while waiting for a job; 0 is half a second.
	Poll time.Duration
	// RetryFor is how long a wait goes on while the API is away; 0 is a minute.
	RetryFor time.Duration
}

// app is one call of codexctl.
type app struct {
	Program
	root *cobra.Command
	// output is the value of --output.
	output string
	// running is true once the command line has been checked.
	running bool
}

// usageError is an error in the command line, or in a file that it names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// failure is an answer that says that a job failed or that the system is not healthy.
type failure struct{ error }

func (e failure) Unwrap() error { return e.error }

// Run runs codexctl with the arguments until it is done or ctx ends, and returns the exit status.
func Run(ctx context.Context, p Program, args []string) (status int) {
	p.Poll, p.RetryFor = cmp.Or(p.Poll, 500*time.Millisecond), cmp.Or(p.RetryFor, time.Minute)
	if p.Now == nil {
		p.Now = time.Now
	}
	a := &app{Program: p}
	a.root = a.command()
	if len(args) == 0 || !strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // which sets flags again and again
		strictFlags(a.root)
	}
	a.root.SetArgs(args)
	a.root.SetOut(p.Out)
	a.root.SetErr(p.Err)
	called, err := a.root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	status = a.status(ctx, err)
	switch {
	case status == exitUsage:
		message := strings.Join(strings.Fields(err.Error()), " ") // what cobra suggests is in lines of its own
		fmt.Fprintf(p.Err, "codexctl: %s; see %s --help\n", line(message), called.CommandPath())
	// The cause that signal.NotifyContext gives is no context.Canceled in Go 1.26.0; in 1.26.8 it is.
	case status == exitInterrupted && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		fmt.Fprintln(p.Err, "codexctl: interrupted")
	default:
		fmt.Fprintf(p.Err, "codexctl: %s\n", line(err.Error()))
	}
	return status
}

func (a *app) status(ctx context.Context, err error) int {
	var usage usageError
	var failed failure
	switch {
	case !a.running || errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &failed):
		return exitFailed
	default:
		return exitServer
	}
}

// command returns codexctl's command with all of its subcommands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "codexctl",
		Short: "Trigger, watch and control the jobs of codex-jobs",
		Long: `codexctl triggers, watches and controls the jobs of codex-jobs over its HTTP API.

The first of these that is set says where the API is, and with which key:
  flags                --server URL, --key-file FILE
  the environment      CODEX_SERVER, CODEX_API_KEY
  a configuration file ~/.config/codexctl.yaml, or the one that --config names, with any of
                         server: https://codex.example.com
                         key-file: ~/.config/codex.key     (or key: with the key itself)
                         ca-file: /etc/ssl/codex-ca.pem

There is no flag for the key itself: other users of this machine could read it.

` + exitHelp,
		Example: `  codexctl status                          show what runs, what waits and what is next
  codexctl trigger user-sync --full --wait synchronise all users, and wait for the end
  codexctl jobs --state failed             show what failed, and why
  codexctl retry 1795495826751:user-sync   try one of those again`,
		Version:       a.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	// Until they are defined cobra takes what follows them for their value.
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	flags := root.PersistentFlags()
	flags.String(keyServer, defaultServer, "the API's URL")
	flags.String(keyKeyFile, "", "a `file` that holds the API key")
	flags.String(keyCAFile, "", "a `file` with certificates of authorities to trust besides the system's")
	flags.String(flagConfig, "", "the configuration `file` (default ~/.config/codexctl.yaml)")
	flags.StringVarP(&a.output, "output", "o", outputTable, "how to print: table or json (the API's data)")
	complete(root, "output", outputTable, outputJSON)
	root.AddCommand(
		a.statusCommand(), a.triggerCommand(), a.jobsCommand(), a.jobCommand(), a.cancelCommand(), a.retryCommand(), a.historyCommand(),
		a.pauseCommand(), a.resumeCommand(), a.cleanupCommand(), a.schedulesCommand(), a.jobTypesCommand(), a.processesCommand(), a.healthCommand(),
		a.notifyTestCommand(), a.whoamiCommand(),
	)
	return root
}

// once is the value of a flag that must be given once at most, and must not be empty: the last of several would win, and an
// empty one would be taken for none.
type once struct {
	pflag.Value
	given bool
}

// Set implements pflag.Value.
func (o *once) Set(text string) error {
	switch {
	case o.given:
		return errors.New("it was given twice; it must be given once")
	case text == "":
		return errors.New("it was empty; it must have a value, or be left out")
	}
	o.given = true
	return o.Value.Set(text)
}

// strictFlags makes the flags of all subcommands be once. The flags of the root, such as --server, are often in an alias, where
// the last of several is meant to win.
func strictFlags(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { f.Value = &once{Value: f.Value} })
	}
}

// do returns a command's RunE: it checks the flags that all commands share, and calls f with a client.
func (a *app) do(f func(ctx context.Context, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if a.output != outputTable && a.output != outputJSON {
			return fmt.Errorf("--output was %q; it must be %q or %q", a.output, outputTable, outputJSON)
		}
		if slices.Contains(args, "") {
			return errors.New("an argument was empty; it must have a value, or be left out")
		}
		api, err := a.connect()
		if err != nil {
			return err
		}
		a.running = true
		return f(cmd.Context(), api, args)
	}
}
