// The report, for people: the faults, and what came of them.

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// shownBreaches is how many are shown of each promise.
const shownBreaches = 10

// report is the result of a run of chaos.
type report struct {
	seed            uint64
	length, settled time.Duration
	faults          map[faultKind]int

	ticks tickVerdict
	// acknowledged and coalesced count triggers.
	acknowledged, coalesced int
	runs                    struct {
		completed, failed, lost, twice int
		slowest                        time.Duration
	}
	charged, announced, ranges, rescued int
	answers                             struct {
		all, refused, failed, late int
		slowest                    time.Duration
		slowestTo                  string
	}
	fresh, stale int
	keys         int
	abandoned    int // unique keys of runs that were never enqueued
	errorLines   map[string]int
	breaches     []breach
}

// String returns the table, and below it what was broken.
func (r *report) String() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(what string, value any) { fmt.Fprintf(w, "%s\t%v\n", what, value) }
	row("\nseed", r.seed)
	row("things were broken for", r.length)
	row("and came to rest in", r.settled.Round(time.Second))
	fmt.Fprintln(w, "\nFAULTS\t")
	all := 0
	for _, d := range deck {
		row(string(d.kind), r.faults[d.kind])
		all += r.faults[d.kind]
	}
	row("together", all)
	fmt.Fprintln(w, "\nTICKS\t")
	row("due", r.ticks.due)
	row("missed", len(r.ticks.missed))
	row("too late", len(r.ticks.late))
	row("doubled", len(r.ticks.doubled))
	row("overdue after an outage, caught up", fmt.Sprintf("%d (the slowest in %s)", r.ticks.overdue, r.ticks.slowest.Round(time.Millisecond)))
	row("overdue, and replaced by a later one", r.ticks.overtaken)
	fmt.Fprintln(w, "\nRUNS\t")
	row("triggers acknowledged", r.acknowledged)
	row("of these coalesced", r.coalesced)
	row("runs completed", fmt.Sprintf("%d (the slowest in %s)", r.runs.completed, r.runs.slowest.Round(time.Second)))
	row("failed", r.runs.failed)
	row("lost", r.runs.lost)
	row("enqueued or ended twice", r.runs.twice)
	row("attempts charged", r.charged)
	row("attempts that failed because they were fenced", max(0, r.announced-r.charged))
	row("ranges enqueued", r.ranges)
	row("runs and ranges of dead workers that were rescued", r.rescued)
	fmt.Fprintln(w, "\nRECORDS\t")
	row("synchronised", r.fresh)
	row("stale", r.stale)
	fmt.Fprintln(w, "\nAPI\t")
	row("answers", fmt.Sprintf("%d (the slowest in %s, to %s)", r.answers.all, r.answers.slowest.Round(time.Millisecond), r.answers.slowestTo))
	row("503, as a server was away", r.answers.refused)
	row("too late", r.answers.late)
	row("failed", r.answers.failed)
	fmt.Fprintln(w, "\nREDIS\t")
	row("keys left", r.keys)
	row("of these, of runs that were never enqueued", r.abandoned)
	if len(r.errorLines) > 0 {
		fmt.Fprintln(w, "\nLOGGED AS ERRORS\t")
		for _, message := range slices.Sorted(maps.Keys(r.errorLines)) {
			row(message, r.errorLines[message])
		}
	}
	_ = w.Flush() // into memory
	r.writeBreaches(&text)
	return text.String()
}

func (r *report) writeBreaches(text *strings.Builder) {
	if len(r.breaches) == 0 {
		fmt.Fprintln(text, "\nAll promises were kept.")
		return
	}
	details := make(map[promise][]string)
	for _, b := range r.breaches {
		details[b.promise] = append(details[b.promise], b.detail)
	}
	for _, p := range slices.Sorted(maps.Keys(details)) {
		fmt.Fprintf(text, "\nBROKEN: %s (%d)\n", p, len(details[p]))
		for i, detail := range details[p] {
			if i == shownBreaches {
				fmt.Fprintln(text, "  ...")
				break
			}
			fmt.Fprintln(text, "  "+detail)
		}
	}
}
