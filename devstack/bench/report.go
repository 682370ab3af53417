// The output of the bench, for people and for programs.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

// report is the result of the bench.
type report struct {
	MeasuredOn measuredOn `json:"measuredOn"`
	// Warnings are reasons to distrust the figures.
	Warnings []string `json:"warnings"`
	Figures  []figure `json:"figures"`
	// Notes name the measurements that are left out, with the reasons.
	Notes []string `json:"notes"`
	// Error is why the figures are not complete; "" when they are.
	Error string `json:"error"`
}

// measuredOn describes the machine and the servers.
type measuredOn struct {
	Product  string   `json:"product"`
	MongoDB  string   `json:"mongodb"`
	Redis    string   `json:"redis"`
	Cores    int      `json:"cores"`
	Platform string   `json:"platform"`
	Go       string   `json:"go"`
	Settings []string `json:"settings"`
}

// figure is one measured value and what it is compared with.
type figure struct {
	Section string  `json:"section"`
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	// Against names what the value is compared with. AgainstValue is its value, in the same unit.
	Against      string  `json:"against"`
	AgainstValue float64 `json:"againstValue"`
	// Ratio is Value divided by AgainstValue; null when that is 0. If both were measured in turns, it is the median of the rounds'
	// ratios, and Spread is the least and the largest of them.
	Ratio  *float64  `json:"ratio"`
	Spread []float64 `json:"spread,omitempty"`
	// Samples and AgainstSamples are the samples of which the two values are the median.
	Samples        []float64 `json:"samples,omitempty"`
	AgainstSamples []float64 `json:"againstSamples,omitempty"`
}

// add adds a figure, and its ratio.
func (r *report) add(f figure) {
	if f.AgainstValue != 0 {
		ratio := f.Value / f.AgainstValue
		if len(f.Samples) == len(f.AgainstSamples) && len(f.Samples) > 1 {
			var ratios []float64
			for i, v := range f.Samples {
				ratios = append(ratios, v/f.AgainstSamples[i])
			}
			ratio, f.Spread = median(ratios), []float64{slices.Min(ratios), slices.Max(ratios)}
		}
		f.Ratio = &ratio
	}
	r.Figures = append(r.Figures, f)
}

// addMedians adds a figure whose values are the medians of samples, and returns its ratio.
func (r *report) addMedians(f figure) float64 {
	f.Value, f.AgainstValue = median(f.Samples), median(f.AgainstSamples)
	r.add(f)
	return *r.Figures[len(r.Figures)-1].Ratio
}

// json prints the report for programs.
func (r *report) json(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	filled := *r // lists are lists, even empty ones
	filled.Warnings = append([]string{}, r.Warnings...)
	filled.Notes = append([]string{}, r.Notes...)
	filled.Figures = append([]figure{}, r.Figures...)
	return encoder.Encode(filled)
}

// table prints the report for people.
func (r *report) table(out io.Writer) error {
	var text strings.Builder
	for _, warning := range r.Warnings {
		text.WriteString(banner(warning))
	}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	on := r.MeasuredOn
	fmt.Fprintf(w, "codex-jobs\t%s\n", on.Product)
	fmt.Fprintf(w, "MongoDB\t%s\n", on.MongoDB)
	fmt.Fprintf(w, "Redis\t%s\n", on.Redis)
	fmt.Fprintf(w, "machine\t%d cores, %s, %s\n", on.Cores, on.Platform, on.Go)
	fmt.Fprintf(w, "settings\t%s\n", strings.Join(on.Settings, " "))
	fmt.Fprintln(w)
	_ = w.Flush() // into memory
	w = tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tFIGURE\tCOMPARED WITH\t\tRATIO\tFROM, TO")
	section := ""
	for _, f := range r.Figures {
		if section != "" && f.Section != section {
			fmt.Fprintln(w, "\t\t\t\t\t") // an empty line with the columns of the others
		}
		section = f.Section
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\t%s\t%s\n",
			f.What, number(f.Value), f.Unit, f.Against, number(f.AgainstValue), ratio(f.Ratio), f.spread())
	}
	_ = w.Flush()
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	for _, note := range r.Notes {
		if _, err := fmt.Fprintf(out, "\nLeft out: %s.\n", note); err != nil {
			return err
		}
	}
	if r.Error != "" {
		reason, _, _ := strings.Cut(r.Error, "\n") // the rest may be a log
		if _, err := fmt.Fprint(out, "\n"+banner("NOT COMPLETE: "+reason)); err != nil {
			return err
		}
	}
	return nil
}

// banner is a line that cannot be overlooked.
func banner(text string) string {
	rule := strings.Repeat("!", 100)
	return rule + "\n!!! " + text + "\n" + rule + "\n\n"
}

// number writes a value with about three significant digits or all of its whole ones, in groups.
func number(v float64) string {
	switch {
	case v >= 100:
		return humanize.FormatFloat("#,###.", v)
	case v >= 10:
		return humanize.FormatFloat("#,###.#", v)
	}
	return humanize.FormatFloat("#,###.##", v)
}

// spread writes the least and the largest ratio of a round.
func (f figure) spread() string {
	if len(f.Spread) == 0 {
		return ""
	}
	return number(f.Spread[0]) + ", " + number(f.Spread[1])
}

func ratio(r *float64) string {
	if r == nil {
		return "-"
	}
	return number(*r)
}

// count writes a number of things.
func count(n int) string { return humanize.Comma(int64(n)) }
