package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// How anything is printed: JSON for programs, and columns for people.

// The values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// none is shown where there is no value.
const none = "-"

// print writes the data as --output says: as JSON, or as table writes it.
func (a *app) print(data any, table func(*page)) error {
	p, err := a.render(data, table)
	if err == nil {
		_, err = a.Out.Write(p)
	}
	if err != nil {
		return failure{fmt.Errorf("printing: %w", err)}
	}
	return nil
}

func (a *app) render(data any, table func(*page)) ([]byte, error) {
	if a.output == outputJSON {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(data)
		return b.Bytes(), err
	}
	p := &page{now: a.Now()}
	table(p)
	return p.text.Bytes(), nil
}

// say writes a line for people to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Err, format+"\n", args...)
}

// page is text for people.
type page struct {
	text bytes.Buffer
	now  time.Time
}

// line writes one line of text.
func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.text, format+"\n", args...) }

// table writes rows below a heading, in columns.
func (p *page) table(heading []string, rows [][]string) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = line(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // a buffer takes everything
	for row := range strings.Lines(b.String()) {
		p.line("%s", strings.TrimRight(row, " \n"))
	}
}

// fields writes pairs of a name and a value, and leaves out those without a value.
func (p *page) fields(pairs ...string) {
	w := tabwriter.NewWriter(&p.text, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], line(pairs[i+1]))
		}
	}
	_ = w.Flush() // a buffer takes everything
}

// line returns a text from a server or a database as one line, without control characters that a terminal obeys.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

const dateLayout = "2006-01-02 15:04:05"

// date returns an instant in the local zone; "" where there is none.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(dateLayout)
}

// moment returns an instant in the local zone and how far it is from now; "" where there is none.
func (p *page) moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(dateLayout+" MST") + " (" + distance(t, p.now) + ")"
}

// distance returns how far an instant is from now, such as "in 12s" and "3m20s ago".
func distance(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + short(d)
	}
	return short(now.Sub(t)) + " ago"
}

// short returns a duration in its two largest units, such as 1h5m, 12s and 340ms.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// took returns how long the job took, or how long an active job has taken so far; "" where that is not known.
func took(j client.Job, now time.Time) string {
	end := j.EndedAt.Time
	if j.State == client.StateActive {
		end = now
	}
	if !j.StartedAt.IsZero() && !end.IsZero() {
		return short(max(0, end.Sub(j.StartedAt.Time)))
	}
	if sync, ok := syncResult(j); ok {
		return short(time.Duration(sync.Duration) * time.Millisecond)
	}
	return ""
}

// brief returns the fields of a JSON object, such as "batchSize=50 syncType=full"; other JSON as it is.
func brief(data json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return string(data)
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := string(fields[name])
		var text string
		if json.Unmarshal(fields[name], &text) == nil {
			value = text
		}
		list = append(list, name+"="+value)
	}
	return strings.Join(list, " ")
}

// abbreviate returns the beginning of a text that has more than n characters.
func abbreviate(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

func orNone(s string) string { return cmp.Or(s, none) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func percent(n int) string { return fmt.Sprintf("%d %%", n) }
