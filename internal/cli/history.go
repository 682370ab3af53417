package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The history: what has ended, and what people did.

// historyFlags are the flags of the command history.
type historyFlags struct {
	filter       client.HistoryFilter
	state        string
	since, until string
	all          bool
}

func (a *app) historyCommand() *cobra.Command {
	var given historyFlags
	cmd := &cobra.Command{
		Use:   "history [ID]",
		Short: "List what has ended, and who did what, or show one entry",
		Long: `List the runs that have ended, and who paused, resumed, cleaned up or cancelled, newest first. With an ID, show all that
is kept of it: its attempts, its ranges over the workers, and the records that failed.

The history outlives what jobs lists. A run is in it a moment after its end.`,
		Example: `  codexctl history
  codexctl history --job user-sync --state failed --since 7d
  codexctl history --kind pause --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z
  codexctl history --text ada@codex.example --all
  codexctl history 1795495826751:user-sync:mq4z2etl --output json | jq .failedRecords`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: only(a.completeHistoryID),
	}
	flags := cmd.Flags()
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		if len(args) == 0 {
			return a.listHistory(ctx, api, given)
		}
		for _, name := range []string{"job", "state", "kind", "since", "until", "text", "limit", "all"} {
			if flags.Changed(name) {
				return usageError{fmt.Errorf("--%s was given with an ID; it must be left out, because it selects what is listed", name)}
			}
		}
		e, err := api.HistoryEntry(ctx, args[0])
		if err != nil {
			return err
		}
		return a.printHistoryEntry(e)
	})
	flags.StringVar(&given.filter.Job, "job", "", "a job `type`, such as user-sync")
	flags.StringVar(&given.state, "state", "", "a `state` of a run: "+strings.Join(historyStates(), ", "))
	flags.StringVar(&given.filter.Kind, "kind", "", "a `kind`: "+strings.Join(client.HistoryKinds(), ", "))
	flags.StringVar(&given.since, "since", "", "the earliest `time`: how long ago, such as 36h or 7d, or an instant, such as 2026-11-24T04:50:00Z")
	flags.StringVar(&given.until, "until", "", "the first `time` that is too late, likewise")
	flags.StringVar(&given.filter.Text, "text", "", "a `text` in the ID, the error, or the ID or the name of a failed record")
	flags.IntVar(&given.filter.Limit, "limit", defaultPageSize, "how many entries, from 1 to 100")
	flags.BoolVar(&given.all, "all", false, "list all entries, however many")
	cmd.MarkFlagsMutuallyExclusive("limit", "all")
	completeFlag(cmd, "job", a.completeJobType)
	complete(cmd, "state", historyStates()...)
	complete(cmd, "kind", client.HistoryKinds()...)
	return cmd
}

func historyStates() []string {
	var names []string
	for _, s := range client.HistoryStates() {
		names = append(names, string(s))
	}
	return names
}

func (a *app) listHistory(ctx context.Context, api *client.Client, given historyFlags) (err error) {
	f := given.filter
	f.State = client.State(given.state)
	switch {
	case f.State != "" && !slices.Contains(client.HistoryStates(), f.State):
		return usageError{fmt.Errorf("--state was %q; it must be %s", f.State, strings.Join(historyStates(), ", "))}
	case f.Kind != "" && !slices.Contains(client.HistoryKinds(), f.Kind):
		return usageError{fmt.Errorf("--kind was %q; it must be %s", f.Kind, strings.Join(client.HistoryKinds(), ", "))}
	case f.Limit < 1 || f.Limit > maxPageSize:
		return usageError{fmt.Errorf("--limit was %d; it must be from 1 to %d", f.Limit, maxPageSize)}
	}
	if f.From, err = a.instant("since", given.since); err != nil {
		return err
	}
	if f.To, err = a.instant("until", given.until); err != nil {
		return err
	}
	var list client.HistoryPage
	if given.all {
		f.Limit = maxPageSize
		list.Entries = []client.HistoryEntry{}
		for e, err := range api.AllHistory(ctx, f) {
			if err != nil {
				return err
			}
			list.Entries = append(list.Entries, e)
		}
	} else if list, err = api.History(ctx, f); err != nil {
		return err
	}
	return a.print(list, func(p *page) { printHistory(p, list) })
}

// instant returns the time that a flag names: an instant, or how long ago. It is zero for "".
func (a *app) instant(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := time.ParseDuration(text)
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		var n int
		n, err = strconv.Atoi(days)
		ago = time.Duration(n) * 24 * time.Hour
		if n > 36_500 {
			err = errors.New("too long")
		}
	}
	if err != nil || ago < 0 {
		return time.Time{}, usageError{fmt.Errorf("--%s was %q; it must be how long ago, such as 36h or 7d, or an instant, such as 2026-11-24T04:50:00Z", flag, text)}
	}
	return a.Now().Add(-ago), nil
}

// what returns the state of a run, or the kind of an action.
func what(e client.HistoryEntry) string { return cmp.Or(string(e.State), e.Kind) }

// actor says who or what did something; "" if that is not known.
func actor(by *client.TriggeredBy) string { return triggeredBy(client.Job{TriggeredBy: by}) }

// note returns what is notable of an entry: why a run failed, or what an action was about; "" for nothing.
func note(e client.HistoryEntry) string {
	if r := e.Removed; r != nil {
		return fmt.Sprintf("removed %d completed, %d failed", r.Completed, r.Failed)
	}
	return cmp.Or(e.Error, e.Target)
}

func elapsed(ms *int64) string {
	if ms == nil {
		return ""
	}
	return short(time.Duration(*ms) * time.Millisecond)
}

func printHistory(p *page, list client.HistoryPage) {
	var rows [][]string
	for _, e := range list.Entries {
		processed, failed := "", ""
		if c := e.Counts; c != nil {
			processed, failed = strconv.FormatInt(c.Processed, 10), strconv.FormatInt(c.Failed, 10)
		}
		rows = append(rows, []string{
			date(e.At.Time), e.Job, what(e), orNone(elapsed(e.Duration)), orNone(processed), orNone(failed), orNone(actor(e.By)), e.ID,
			orNone(abbreviate(note(e), errorWidth)),
		})
	}
	if len(rows) == 0 {
		p.line("Nothing in the history.")
		return
	}
	p.table([]string{"ENDED", "JOB", "WHAT", "TOOK", "PROCESSED", "FAILED", "BY", "ID", "NOTE"}, rows)
	if list.Next != "" {
		p.line("")
		p.line("There are older ones; --all shows all.")
	}
}

func countsOf(c *client.RecordCounts) string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%d processed, %d updated, %d failed", c.Processed, c.Updated, c.Failed)
}

func (a *app) printHistoryEntry(e client.HistoryEntry) error {
	return a.print(e, func(p *page) {
		ended, attempt, removed := "Ended", "", ""
		if e.Kind != client.HistoryRun {
			ended = "Done"
		}
		if e.Attempts > 0 && e.Attempt > 0 {
			attempt = fmt.Sprintf("%d of %d", e.Attempt, e.Attempts)
		}
		if e.Removed != nil {
			removed = fmt.Sprintf("%d completed, %d failed", e.Removed.Completed, e.Removed.Failed)
		}
		ranges := ""
		if e.RangesTotal > 0 {
			ranges = strconv.Itoa(e.RangesTotal)
		}
		p.fields(
			"ID", e.ID,
			"Kind", e.Kind,
			"Job", e.Job,
			"State", string(e.State),
			"Data", brief(e.Data),
			"By", actor(e.By),
			"Attempt", attempt,
			"Started", p.moment(e.StartedAt.Time),
			ended, p.moment(e.At.Time),
			"Took", elapsed(e.Duration),
			"Records", countsOf(e.Counts),
			"Ranges", ranges,
			"Cancelled", e.Target,
			"Removed", removed,
			"Error", e.Error,
			"Result", resultOf(client.Job{Job: e.Job, Result: e.Result}),
			"Trace", e.TraceID,
		)
		var rows [][]string
		for _, x := range e.EndedAttempts {
			rows = append(rows, []string{
				strconv.Itoa(x.Number), date(x.StartedAt.Time), short(max(0, x.EndedAt.Sub(x.StartedAt.Time))), x.Outcome, x.Worker, orNone(x.Error),
			})
		}
		p.section([]string{"ATTEMPT", "STARTED", "TOOK", "OUTCOME", "WORKER", "ERROR"}, rows)
		rows = nil
		for _, x := range e.Rescues {
			rows = append(rows, []string{date(x.At.Time), rescued(x), orNone(x.LostWorker), x.Worker})
		}
		p.section([]string{"RESCUED", "WHAT", "LOST WORKER", "WENT ON"}, rows)
		rows = nil
		for _, x := range e.Ranges {
			took := ""
			if !x.StartedAt.IsZero() && !x.EndedAt.IsZero() {
				took = short(max(0, x.EndedAt.Sub(x.StartedAt.Time)))
			}
			rows = append(rows, []string{
				strconv.Itoa(x.Index + 1), orNone(date(x.StartedAt.Time)), orNone(took), x.Outcome, orNone(x.Worker), orNone(countsOf(x.Counts)), orNone(x.Error),
			})
		}
		p.section([]string{"RANGE", "STARTED", "TOOK", "OUTCOME", "WORKER", "RECORDS", "ERROR"}, rows)
		if n := len(e.Ranges); n > 0 && n < e.RangesTotal {
			p.line("These are %d of %d ranges.", n, e.RangesTotal)
		}
		rows = nil
		for _, x := range e.FailedRecords {
			rows = append(rows, []string{x.ID, orNone(x.Name), x.Reason})
		}
		p.section([]string{"FAILED RECORD", "NAME", "REASON"}, rows)
		if n := int64(len(e.FailedRecords)); n > 0 && e.Counts != nil && n < e.Counts.Failed {
			p.line("These are the first %d of %d records that failed.", n, e.Counts.Failed)
		}
	})
}

// section writes a table below an empty line, if it has rows.
func (p *page) section(heading []string, rows [][]string) {
	if len(rows) > 0 {
		p.line("")
		p.table(heading, rows)
	}
}

// completeHistoryID completes an argument with the IDs of the newest entries.
func (a *app) completeHistoryID(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, func(ctx context.Context, api *client.Client) ([]string, error) {
		list, err := api.History(ctx, client.HistoryFilter{Limit: maxPageSize})
		var ids []string
		for _, e := range list.Entries {
			ids = append(ids, cobra.CompletionWithDesc(e.ID, line(what(e)+" "+date(e.At.Time))))
		}
		return ids, err
	})
}
