package procs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine is where a longer line is broken: a line without an end must not fill the memory.
	maxLine = 64 << 10
	// TailLines is how much of a log is shown when something has failed.
	TailLines = 15
)

// Attrs are the fields of a line in JSON. Numbers are float64.
type Attrs map[string]any

// Entry is one line of a log.
type Entry struct {
	// Text is the line as it was written, without its end.
	Text string
	// Attrs are the line's fields; nil for a line that is no JSON object, such as one of a panic.
	Attrs Attrs
}

// String returns the line as it was written.
func (e Entry) String() string { return e.Text }

// Msg returns the line's message.
func (e Entry) Msg() string {
	msg, _ := e.Attrs["msg"].(string)
	return msg
}

// Time returns when the line was written, by the program's clock.
func (e Entry) Time() time.Time {
	text, _ := e.Attrs["time"].(string)
	at, _ := time.Parse(time.RFC3339Nano, text) // zero where there is none
	return at
}

// Match selects lines: those that fit all fields that are set.
type Match struct {
	// Msg is the message.
	Msg string
	// Attrs are fields with their values.
	Attrs Attrs
	// Text is a part of the line.
	Text string
	// Since is the earliest time of the line.
	Since time.Time
}

// String describes the lines for people.
func (m Match) String() string {
	var parts []string
	if m.Msg != "" {
		parts = append(parts, fmt.Sprintf("%q", m.Msg))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Attrs)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, m.Attrs[name]))
	}
	if m.Text != "" {
		parts = append(parts, fmt.Sprintf("with %q in it", m.Text))
	}
	if !m.Since.IsZero() {
		parts = append(parts, "since "+m.Since.Format(time.RFC3339Nano))
	}
	return strings.Join(parts, " ")
}

func (m Match) matches(e Entry) bool {
	if m.Msg != "" && e.Msg() != m.Msg || !strings.Contains(e.Text, m.Text) || !m.Since.IsZero() && e.Time().Before(m.Since) {
		return false
	}
	for name, value := range m.Attrs {
		if e.Attrs[name] != value {
			return false
		}
	}
	return true
}

// Log is a writer that reads what a program logs, line by line. The zero value is ready. It is safe for concurrent use.
type Log struct {
	// Copy gets everything that is written. When it fails the log itself is still complete.
	Copy io.Writer
	// Each is called with each line in turn, and must not use the log. Such a log keeps only the last lines, so Find and
	// Wait are not for it.
	Each func(Entry)

	mu      sync.Mutex
	pending []byte // a line that has not ended yet
	entries []Entry
	changed chan struct{} // closed at the next change; nil when nothing waits for one
	ended   bool
}

// Write takes the lines that end in p and keeps the rest.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.Copy != nil {
		_, _ = l.Copy.Write(p)
	}
	l.pending = append(l.pending, p...)
	for {
		line, rest, ended := bytes.Cut(l.pending, []byte{'\n'})
		if len(line) > maxLine || !ended && len(line) == maxLine {
			line, rest = l.pending[:maxLine], l.pending[maxLine:]
		} else if !ended {
			return len(p), nil
		}
		l.take(line)
		l.pending = rest
	}
}

// take keeps a line; the log must be locked.
func (l *Log) take(line []byte) {
	e := Entry{Text: string(bytes.TrimSuffix(line, []byte{'\r'}))}
	if bytes.HasPrefix(line, []byte{'{'}) && json.Unmarshal(line, &e.Attrs) != nil {
		e.Attrs = nil
	}
	if l.Each != nil {
		l.Each(e)
		l.entries = l.entries[max(0, len(l.entries)-TailLines):]
	}
	l.entries = append(l.entries, e)
	l.wake()
}

func (l *Log) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// End says that nothing more will be written. A line without an end counts, unless it was JSON: a killed program may be cut
// off in the middle of a line.
func (l *Log) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) > 0 && l.pending[0] != '{' {
		l.take(l.pending)
	}
	l.pending, l.ended = nil, true
	l.wake()
}

// Find returns the lines that match.
func (l *Log) Find(match Match) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return find(l.entries, match)
}

func find(entries []Entry, match Match) []Entry {
	var found []Entry
	for _, e := range entries {
		if match.matches(e) {
			found = append(found, e)
		}
	}
	return found
}

// Wait waits until there are n lines that match, and returns them. It returns an error, and the lines that there are, when
// ctx or the log ends before.
func (l *Log) Wait(ctx context.Context, n int, match Match) ([]Entry, error) {
	var found []Entry
	for seen := 0; ; {
		l.mu.Lock()
		found = append(found, find(l.entries[seen:], match)...)
		seen = len(l.entries)
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed, ended := l.changed, l.ended
		l.mu.Unlock()
		switch {
		case len(found) >= n:
			return found, nil
		case ended:
			return found, errEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return found, context.Cause(ctx)
		}
	}
}

// Odd returns the lines that are no JSON objects: a panic, or what the race detector has found.
func (l *Log) Odd() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var odd []string
	for _, e := range l.entries {
		if e.Attrs == nil && strings.TrimSpace(e.Text) != "" {
			odd = append(odd, e.Text)
		}
	}
	return odd
}

// String returns the whole log.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return text(l.entries, l.pending)
}

// Tail returns the last lines.
func (l *Log) Tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return text(l.entries[max(0, len(l.entries)-lines):], l.pending)
}

func text(entries []Entry, pending []byte) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Text)
		b.WriteByte('\n')
	}
	b.Write(pending)
	return b.String()
}
