// The bench takes minutes, so it shows its progress.

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows the progress: with bars on a terminal, elsewhere with plain lines.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(f *os.File) *progress {
	return &progress{out: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// say prints a line.
func (p *progress) say(format string, args ...any) {
	fmt.Fprintf(p.out, "bench: "+format+"\n", args...)
}

// bar begins a step with a total. The caller adds the progress, and must call done at the end.
func (p *progress) bar(what string, total int) *bar {
	if !p.terminal {
		p.say("%s", what)
		return &bar{}
	}
	return &bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetDescription("bench: "+what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// bar shows the progress of one step. It is safe for concurrent use.
type bar struct {
	shown *progressbar.ProgressBar // nil where there is no terminal
}

func (b *bar) add(n int) {
	if b.shown != nil {
		_ = b.shown.Add(n) // only the display can fail
	}
}

func (b *bar) done() {
	if b.shown != nil {
		_ = b.shown.Exit() // leaves an incomplete bar as it is
		_ = b.shown.Clear()
	}
}
