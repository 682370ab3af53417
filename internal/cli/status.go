package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The status, once or again and again.

// minInterval is the least pause between two looks of --watch.
const minInterval = 100 * time.Millisecond

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status [JOB]",
		Short: "Show what runs, what waits, and what is next",
		Long: `Show how many jobs there are in each state, which ones are active and how far they are, and when the
next ticks are. Without JOB it shows every job type of the server.

--watch repeats this until Ctrl-C. On a terminal it redraws the screen; otherwise one answer follows the
other. It goes on when the server is away for a while.`,
		Example: `  codexctl status
  codexctl status user-sync
  codexctl status --watch
  codexctl status --output json | jq .counts`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: only(a.completeJobType),
	}
	cmd.RunE = a.do(func(ctx context.Context, api *client.Client, args []string) error {
		job := client.AllJobs
		if len(args) > 0 {
			job = args[0]
		}
		if !watch {
			return a.show(ctx, api, job)
		}
		if interval < minInterval {
			return usageError{fmt.Errorf("--interval was %s; it must be %s or longer", interval, minInterval)}
		}
		return a.watch(ctx, api, job, interval)
	})
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "repeat it until Ctrl-C")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "the pause between two looks of --watch")
	return cmd
}

// overview is the status of one job type, or of all together and of each.
type overview struct {
	job  string
	of   client.Status
	each []namedStatus
}

type namedStatus struct {
	job string
	client.Status
}

// show shows the status once.
func (a *app) show(ctx context.Context, api *client.Client, job string) error {
	o, err := a.overview(ctx, api, job)
	if err != nil {
		return err
	}
	return a.print(o.of, o.table)
}

func (a *app) overview(ctx context.Context, api *client.Client, job string) (overview, error) {
	o := overview{job: job}
	var err error
	if o.of, err = api.Status(ctx, job); err != nil || job != client.AllJobs || a.output == outputJSON {
		return o, err
	}
	types, err := api.JobTypes(ctx)
	if client.IsNotFound(err) {
		return o, nil // the server is of a release that does not list them
	}
	if err != nil {
		return o, err
	}
	for _, t := range types {
		s, err := api.Status(ctx, t.Name)
		if err != nil {
			return o, err
		}
		o.each = append(o.each, namedStatus{t.Name, s})
	}
	return o, nil
}

func (o overview) table(p *page) {
	var rows [][]string
	for _, s := range append(o.each, namedStatus{o.job, o.of}) {
		var next time.Time
		for _, r := range s.RepeatableJobs {
			if t := time.UnixMilli(r.Next); next.IsZero() || t.Before(next) {
				next = t
			}
		}
		inTime := none
		if !next.IsZero() {
			inTime = distance(next, p.now)
		}
		c := s.Counts
		row := []string{s.job}
		for _, n := range []int{c.Waiting, c.Active, c.Delayed, c.Completed, c.Failed} {
			row = append(row, strconv.Itoa(n))
		}
		paused := yesNo(s.Paused)
		if s.job == client.AllJobs {
			paused = none // the API tells only whether each of them is
		}
		rows = append(rows, append(row, paused, inTime))
	}
	p.table([]string{"JOB", "WAITING", "ACTIVE", "DELAYED", "COMPLETED", "FAILED", "PAUSED", "NEXT"}, rows)
	if len(o.of.ActiveJobs) == 0 {
		return
	}
	rows = nil
	for _, j := range o.of.ActiveJobs {
		rows = append(rows, []string{j.ID, percent(j.Progress), brief(j.Data)})
	}
	p.line("")
	p.table([]string{"ACTIVE", "PROGRESS", "DATA"}, rows)
}

// watch shows the status until ctx ends, or until the server refuses.
func (a *app) watch(ctx context.Context, api *client.Client, job string, interval time.Duration) error {
	for first := true; ; first = false {
		o, err := a.overview(ctx, api, job)
		switch {
		case err == nil:
			if err := a.print(o.of, a.look(o, first, interval)); err != nil {
				return err
			}
		case first || !client.Temporary(err):
			return err
		default:
			a.say("codexctl: %s; trying again", line(err.Error()))
		}
		if !sleep(ctx, interval) {
			return ctx.Err()
		}
	}
}

// What a terminal does when it is sent these.
const (
	clearScreen      = "\x1b[2J"
	cursorHome       = "\x1b[H"
	clearToEndOfLine = "\x1b[K"
	clearBelow       = "\x1b[J"
)

// look returns how one of several looks is printed: in the place of the one before on a terminal, below it otherwise.
func (a *app) look(o overview, first bool, interval time.Duration) func(*page) {
	if !terminal(a.Out) {
		return func(p *page) {
			if !first {
				p.line("")
			}
			o.table(p)
		}
	}
	return func(p *page) {
		o.table(p)
		p.line("\n%s, every %s; Ctrl-C ends it", date(p.now), interval)
		text := cursorHome + strings.ReplaceAll(p.text.String(), "\n", clearToEndOfLine+"\n") + clearBelow
		if first {
			text = clearScreen + text
		}
		p.text.Reset()
		p.text.WriteString(text)
	}
}

// sleep waits, and returns false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
