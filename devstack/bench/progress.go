// The bench takes minutes, in which it has to be seen that it is getting on.

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress tells whoever waits what is being done: on a terminal with bars, elsewhere with plain lines.
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

// bar begins something of which there are total. The caller adds what is done and must call done at the end.
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

// bar shows how far something is. It is safe for concurrent use.
type bar struct {
	shown *progressbar.ProgressBar // nil where there is no terminal
}

func (b *bar) add(n int) {
	if b.shown != nil {
		_ = b.shown.Add(n) // only the look of it is at stake
	}
}

func (b *bar) done() {
	if b.shown != nil {
		_ = b.shown.Exit() // leaves what is not complete as it stands
		_ = b.shown.Clear()
	}
}
