package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The commands about single jobs.

const (
	defaultPageSize = 20
	maxPageSize     = 100
	// errorWidth is how much of an error a row shows.
	errorWidth = 60
)

func (a *app) jobsCommand() *cobra.Command {
	var filter client.Filter
	var state string
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List jobs, with their state and why they failed",
		Long:  "List the jobs of all job types and in all states, or those that the flags select.",
		Example: `  codexctl jobs
  codexctl jobs --job user-sync --state failed
  codexctl jobs --page 2 --page-size 50
  codexctl jobs --state failed --output json | jq -r '.jobs[].id'`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, _ []string) error {
		filter.State = client.State(state)
		if state != "" && !slices.Contains(client.States(), filter.State) {
			return usageError{fmt.Errorf("--state was %q; it must be %s", state, strings.Join(stateNames(), ", "))}
		}
		if filter.Page < 1 {
			return usageError{fmt.Errorf("--page was %d; it must be 1 or more", filter.Page)}
		}
		if filter.PageSize < 1 || filter.PageSize > maxPageSize {
			return usageError{fmt.Errorf("--page-size was %d; it must be from 1 to %d", filter.PageSize, maxPageSize)}
		}
		list, err := api.Jobs(ctx, filter)
		if err != nil {
			return err
		}
		return a.print(list, func(p *page) { listJobs(p, list) })
	})
	flags := cmd.Flags()
	flags.StringVar(&filter.Job, "job", "", "a job `type`, such as user-sync")
	flags.StringVar(&state, "state", "", "a `state`: "+strings.Join(stateNames(), ", "))
	flags.IntVar(&filter.Page, "page", 1, "the page, counted from 1")
	flags.IntVar(&filter.PageSize, "page-size", defaultPageSize, "jobs on a page, from 1 to 100")
	completeFlag(cmd, "job", a.completeJobType)
	complete(cmd, "state", stateNames()...)
	return cmd
}

func stateNames() []string {
	var names []string
	for _, s := range client.States() {
		names = append(names, string(s))
	}
	return names
}

func listJobs(p *page, list client.JobList) {
	var rows [][]string
	for _, j := range list.Jobs {
		rows = append(rows, []string{
			j.ID, string(j.State), percent(j.Progress), fmt.Sprintf("%d/%d", j.Attempt, j.Attempts), orNone(date(j.CreatedAt.Time)),
			orNone(took(j, p.now)), orNone(brief(j.Data)), orNone(abbreviate(j.Error, errorWidth)),
		})
	}
	if len(rows) > 0 {
		p.table([]string{"ID", "STATE", "PROGRESS", "ATTEMPT", "CREATED", "TOOK", "DATA", "ERROR"}, rows)
		p.line("")
	}
	first := (list.Page-1)*list.PageSize + 1
	last := first + len(list.Jobs) - 1
	switch {
	case list.Total == 0:
		p.line("No jobs.")
	case len(list.Jobs) == 0:
		p.line("No jobs on page %d; there are %d in all.", list.Page, list.Total)
	case first == last && last == list.Total:
		p.line("%d of %d.", last, list.Total)
	case last < list.Total:
		p.line("%d to %d of %d; --page %d shows the next ones.", first, last, list.Total, list.Page+1)
	default:
		p.line("%d to %d of %d.", first, last, list.Total)
	}
}

func (a *app) jobCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "job ID",
		Short: "Show one job: its state, progress, error and result",
		Long: `Show one job: its state, progress, error and result.

With --wait it first waits for the job's end, as trigger --wait does, and exits with 1 if the job failed.`,
		Example: `  codexctl job 1795495826751:user-sync:mq4z2etl
  codexctl job 1795495826751:user-sync:mq4z2etl --wait
  codexctl job 1795495826751:user-sync:mq4z2etl --output json | jq .result`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: only(a.completeID(client.States()...)),
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		if wait {
			return a.wait(ctx, api, args[0])
		}
		j, err := api.Job(ctx, args[0])
		if err != nil {
			return err
		}
		return a.printJob(j)
	})
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait for the job's end")
	return cmd
}

// triggeredBy says who or what made a job; "" if that is not known.
func triggeredBy(j client.Job) string {
	switch by := j.TriggeredBy; {
	case by == nil:
		return ""
	case by.Key != "":
		return by.Kind + " " + by.Key
	default:
		return by.Kind
	}
}

// attempts lists the attempts that have ended and are not told of otherwise: all but one that the job ended with.
func attempts(p *page, j client.Job) (fields []string) {
	if len(j.EndedAttempts) < 2 && j.State.Ended() {
		return nil
	}
	for _, a := range j.EndedAttempts {
		text := fmt.Sprintf("%s, %s in %s", p.moment(a.StartedAt.Time), a.Outcome, short(a.EndedAt.Sub(a.StartedAt.Time)))
		if a.Error != "" {
			text += ": " + a.Error
		}
		fields = append(fields, fmt.Sprintf("Attempt %d", a.Number), text)
	}
	return fields
}

// rescues lists which workers were lost, and which went on.
func rescues(p *page, list []client.Rescue) (fields []string) {
	for _, r := range list {
		fields = append(fields, "Rescue", fmt.Sprintf("%s, of %s: %s was lost, %s went on", p.moment(r.At.Time), rescued(r), cmp.Or(r.LostWorker, "a worker"), r.Worker))
	}
	return fields
}

// rescued says what another worker went on with.
func rescued(r client.Rescue) string {
	if r.Range == nil {
		return "the run"
	}
	return fmt.Sprintf("range %d", *r.Range+1) // people count from 1
}

// recordsOf says what a job has done to its records, of how many; "" if that is not known. The result of one that has completed says
// it, too.
func recordsOf(j client.Job) string {
	if _, ok := syncResult(j); ok {
		return ""
	}
	text := countsOf(j.Counts)
	switch {
	case j.Total == 0:
		return text
	case text == "":
		return fmt.Sprintf("%d to visit", j.Total)
	default:
		return fmt.Sprintf("%s, of %d", text, j.Total)
	}
}

// rescueOf says when what a lost worker had is put back; "" if none is lost.
func rescueOf(j client.Job) string {
	switch {
	case !j.WorkerLost:
		return ""
	case j.RescueWithin == nil:
		return "lost; the job is put back once a worker lives"
	}
	return "lost; the job is put back in at most " + short(time.Duration(*j.RescueWithin)*time.Millisecond) + ", and then waits its turn"
}

// waitingFor says what an active job waits for; "" if it goes on.
func waitingFor(j client.Job, now time.Time) string {
	if j.Waiting == nil {
		return ""
	}
	what := j.Waiting.For
	if j.Waiting.Slow {
		what += ", which is slow"
	}
	return what + ", for " + short(now.Sub(j.Waiting.Since.Time))
}

func (a *app) printJob(j client.Job) error {
	return a.print(j, func(p *page) {
		var ranges string
		if j.Ranges != nil {
			ranges = fmt.Sprintf("%d of %d done", j.Ranges.Ended, j.Ranges.Total)
		}
		next := "Next attempt"
		if toCome(j) {
			next = "Starts"
		}
		p.fields(append([]string{
			"ID", j.ID,
			"Job", j.Job,
			"State", string(j.State),
			"Data", brief(j.Data),
			"Progress", percent(j.Progress),
			"Records", recordsOf(j),
			"Ranges", ranges,
			"Waiting for", waitingFor(j, p.now),
			"Worker", rescueOf(j),
			"Attempt", fmt.Sprintf("%d of %d", j.Attempt, j.Attempts),
			"Triggered by", triggeredBy(j),
			"Created", p.moment(j.CreatedAt.Time),
			"Started", p.moment(j.StartedAt.Time),
			"Ended", p.moment(j.EndedAt.Time),
			next, p.moment(j.NextAttemptAt.Time),
			"Took", took(j, p.now),
			"Error", j.Error,
			"Result", resultOf(j),
		}, append(attempts(p, j), rescues(p, j.Rescues)...)...)...)
	})
}

// syncResult returns the result of a synchronisation, and whether it is one.
func syncResult(j client.Job) (client.SyncResult, bool) {
	var fields map[string]json.RawMessage
	var sync client.SyncResult
	ok := json.Unmarshal(j.Result, &fields) == nil && fields["usersProcessed"] != nil && json.Unmarshal(j.Result, &sync) == nil
	return sync, ok
}

// resultOf returns a job's result in words; "" where there is none.
func resultOf(j client.Job) string {
	if len(j.Result) == 0 {
		return ""
	}
	sync, ok := syncResult(j)
	if !ok {
		return brief(j.Result)
	}
	records := "records"
	if name, ok := strings.CutSuffix(j.Job, "-sync"); ok {
		records = name + "s"
	}
	text := fmt.Sprintf("%d %s processed, %d updated, %d failed, in %s", sync.UsersProcessed, records,
		sync.UsersUpdated, sync.Errors, short(time.Duration(sync.Duration)*time.Millisecond))
	for _, warning := range sync.Warnings {
		text += "; " + line(warning)
	}
	return text
}

func (a *app) cancelCommand() *cobra.Command {
	var job string
	cmd := &cobra.Command{
		Use:   "cancel ID | --waiting JOB|all",
		Short: "Remove a job that waits, or stop one that is active",
		Long: `Remove a job that is waiting or delayed, or stop one that is active: soon afterwards it is listed as
cancelled. A job that has ended cannot be cancelled.

With --waiting it removes all waiting jobs of a type, or of all types, without asking back. Active and
delayed jobs stay. If there are so many that some are left it exits with 1: call it again.`,
		Example: `  codexctl cancel 1795495826751:user-sync:mq4z2etl
  codexctl cancel --waiting project-sync
  codexctl cancel --waiting all`,
		Args:              oneOrFlag("waiting"),
		ValidArgsFunction: only(a.completeID(client.StateWaiting, client.StateActive, client.StateDelayed)),
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		if job != "" {
			removed, err := api.CancelWaiting(ctx, job)
			return a.printSeveral(removed, removed.Message, removed.Left, err)
		}
		changed, err := api.Cancel(ctx, args[0])
		return a.printChanged(changed, err)
	})
	cmd.Flags().StringVar(&job, "waiting", "", "remove all waiting jobs of this job `type`, or of all")
	completeFlag(cmd, "waiting", a.completeJobTypeOrAll)
	return cmd
}

func (a *app) retryCommand() *cobra.Command {
	var job string
	cmd := &cobra.Command{
		Use:   "retry ID | --failed JOB|all",
		Short: "Enqueue a failed job again",
		Long: `Enqueue a failed job again, with all its attempts.

With --failed it enqueues all failed jobs of a type, or of all types, without asking back. Cancelled jobs
stay. If there are so many that some are left it exits with 1: call it again.`,
		Example: `  codexctl retry 1795495826751:user-sync:mq4z2etl
  codexctl retry --failed user-sync
  codexctl retry --failed all`,
		Args:              oneOrFlag("failed"),
		ValidArgsFunction: only(a.completeID(client.StateFailed, client.StateCancelled)),
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		if job != "" {
			retried, err := api.RetryFailed(ctx, job)
			return a.printSeveral(retried, retried.Message, retried.Left, err)
		}
		changed, err := api.Retry(ctx, args[0])
		return a.printChanged(changed, err)
	})
	cmd.Flags().StringVar(&job, "failed", "", "retry all failed jobs of this job `type`, or of all")
	completeFlag(cmd, "failed", a.completeJobTypeOrAll)
	return cmd
}

// oneOrFlag wants one argument, or the flag in its place.
func oneOrFlag(flag string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed(flag) {
			return cobra.ExactArgs(1)(cmd, args)
		}
		if len(args) > 0 {
			return fmt.Errorf("there were --%s and the ID of a job; it must be one of them", flag)
		}
		return nil
	}
}

func (a *app) printChanged(changed client.Changed, err error) error {
	if err != nil {
		return err
	}
	text := cmp.Or(changed.Message, fmt.Sprintf("Job %s: %s", changed.ID, changed.State))
	return a.print(changed, func(p *page) { p.line("%s", line(text)) })
}

// printSeveral prints the answer to a change of many jobs, of which some can be left.
func (a *app) printSeveral(answer any, message string, left int, err error) error {
	if err != nil {
		return err
	}
	if err := a.print(answer, func(p *page) { p.line("%s", line(message)) }); err != nil {
		return err
	}
	if left > 0 {
		return failure{fmt.Errorf("%d left; call it again", left)}
	}
	return nil
}
