package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxLine is where a longer line is broken, so that one without an end does not fill the memory.
const maxLine = 64 << 10

// nameWidth is as wide as the longest name of a process.
const nameWidth = 9

// colours are those of the terminal that can be read on light and dark ground.
var colours = []int{36, 33, 32, 35}

// console writes what several processes print, line by line.
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
	_, _ = c.out.Write(text) // where it fails there is nowhere left to say so
}

// stream returns a writer that prints each line with the process's name before it. Index chooses the colour.
func (c *console) stream(name string, index int) *stream {
	prefix := fmt.Sprintf("%-*s| ", nameWidth, name)
	if c.colour {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[index%len(colours)], prefix)
	}
	return &stream{console: c, prefix: prefix}
}

// stream is what one process prints. It is used by one goroutine at a time.
type stream struct {
	console *console
	prefix  string
	pending []byte // a line that has not ended yet
}

// Write prints the lines that end in p and keeps the rest.
func (s *stream) Write(p []byte) (int, error) {
	s.pending = append(s.pending, p...)
	for {
		end := bytes.IndexByte(s.pending, '\n')
		if end < 0 && len(s.pending) < maxLine {
			return len(p), nil
		}
		if end < 0 || end > maxLine {
			s.line(s.pending[:maxLine])
			s.pending = s.pending[maxLine:]
			continue
		}
		s.line(s.pending[:end])
		s.pending = s.pending[end+1:]
	}
}

// flush prints a last line that has no end.
func (s *stream) flush() {
	if len(s.pending) > 0 {
		s.line(s.pending)
		s.pending = nil
	}
}

// line prints one line in one piece.
func (s *stream) line(text []byte) {
	line := append([]byte(s.prefix), bytes.TrimSuffix(text, []byte{'\r'})...)
	s.console.write(append(line, '\n'))
}
