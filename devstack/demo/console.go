package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// nameWidth is the width of the longest name of a process.
const nameWidth = 9

// colours are the colours that can be read on a light and on a dark terminal.
var colours = []int{36, 33, 32, 35}

// console writes the output of several processes, line by line.
type console struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
}

// newConsole returns a console on f, coloured if f is a terminal.
func newConsole(f *os.File) *console {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &console{out: f, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// printf prints text of the demo's own.
func (c *console) printf(format string, args ...any) {
	c.write(fmt.Appendf(nil, format, args...))
}

func (c *console) write(text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(text) // there is no other place for an error
}

// lines returns a writer that prints each line of a process after the name, in one piece. The index chooses the colour.
func (c *console) lines(name string, index int) func(procs.Entry) {
	prefix := fmt.Sprintf("%-*s| ", nameWidth, name)
	if c.colour {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[index%len(colours)], prefix)
	}
	return func(e procs.Entry) { c.write([]byte(prefix + e.Text + "\n")) }
}
