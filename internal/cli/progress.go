package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// The progress of a job, while codexctl waits for it.

// progress shows how far a job is.
type progress interface {
	// job shows the job as it is now.
	job(client.Job)
	// note shows something that has come up.
	note(string)
	// end leaves what was shown as it is.
	end()
}

// newProgress returns a bar on a terminal, and lines elsewhere.
func newProgress(w io.Writer, now func() time.Time) progress {
	if terminal(w) {
		return newBar(w, now)
	}
	return &lines{out: w}
}

// widthOf returns a terminal's number of columns; 0 where it is not known.
func widthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// stateOf returns a job's state and pace in words.
func stateOf(j client.Job, pace string) string {
	s := string(j.State) + pace
	if j.Ranges != nil {
		s += fmt.Sprintf(", %d of %d ranges done", j.Ranges.Ended, j.Ranges.Total)
	}
	if j.Attempt > 1 {
		s += fmt.Sprintf(", attempt %d of %d", j.Attempt, j.Attempts)
	}
	if j.State == client.StateDelayed {
		what := ", tried again "
		if toCome(j) {
			what = ", starts "
		}
		s += what + orNone(date(j.NextAttemptAt.Time))
		if j.Error != "" {
			s += ": " + abbreviate(line(j.Error), errorWidth)
		}
	}
	return s
}

// toCome reports whether a job is delayed, and was never tried.
func toCome(j client.Job) bool {
	return j.State == client.StateDelayed && j.StartedAt.IsZero() && j.Attempt == 0
}

// lineStep is how many percent pass between two lines.
const lineStep = 10

// lines shows progress where there is no terminal: a line when the state changes, and now and then.
type lines struct {
	out   io.Writer
	state string
	shown int
}

func (l *lines) job(j client.Job) {
	state := stateOf(j, "")
	if state == l.state && j.Progress < l.shown+lineStep {
		return
	}
	l.state, l.shown = state, j.Progress
	fmt.Fprintf(l.out, "%3d %%  %s\n", j.Progress, state)
}

func (l *lines) note(text string) { fmt.Fprintln(l.out, text) }

func (l *lines) end() {}

// barWidth is the bar's own, where the terminal is wide enough.
const barWidth = 30

// besideText is how much of a terminal's line is kept for the percentage and the bar.
const besideText = 24

// bar shows progress on a terminal, in one line. It computes the rate and the time left itself: the library looks at the last
// few steps only, which says nothing about a job that takes minutes for one percent.
type bar struct {
	bar *progressbar.ProgressBar
	out io.Writer
	now func() time.Time
	// since and from are when the job was first seen active, and how far it was then.
	since time.Time
	from  int
	drawn bool
}

func newBar(w io.Writer, now func() time.Time) *bar {
	return &bar{out: w, now: now, bar: progressbar.NewOptions(100,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetWidth(barWidth),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionUseANSICodes(true),
	)}
}

func (b *bar) job(j client.Job) {
	var pace string
	if j.State == client.StateActive {
		pace = b.pace(j.Progress)
	}
	text := stateOf(j, pace)
	done := j.Progress
	if j.State != client.StateCompleted {
		done = min(done, 99) // a full bar cannot be changed any more
	}
	if width := widthOf(b.out); width > besideText {
		text = abbreviate(text, width-besideText) // a line that is broken cannot be drawn over
	}
	b.drawn = true
	b.bar.Describe(text)
	_ = b.bar.Set(done) // what cannot be drawn is not needed for anything
}

// pace returns how fast the job is and how long it will take, as far as that can be told.
func (b *bar) pace(percent int) string {
	now := b.now()
	if b.since.IsZero() || percent < b.from {
		b.since, b.from = now, percent
	}
	elapsed, gained := now.Sub(b.since), percent-b.from
	if gained == 0 || elapsed <= 0 {
		return ""
	}
	rate := float64(gained) / elapsed.Seconds()
	left := time.Duration(float64(100-percent) / rate * float64(time.Second))
	unit := "s"
	if rate < 1 {
		rate, unit = rate*60, "min"
	}
	if rate < 1 {
		rate, unit = rate*60, "h"
	}
	return fmt.Sprintf(", %.3g %%/%s, %s left", rate, unit, short(left.Round(time.Second)))
}

func (b *bar) note(text string) {
	b.end()
	fmt.Fprintln(b.out, text)
}

func (b *bar) end() {
	if b.drawn {
		fmt.Fprintln(b.out)
	}
	b.drawn = false
}
