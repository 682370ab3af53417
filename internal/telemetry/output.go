// Where a program's log goes. The log is not worth a run: a program goes on when the reader of its log ends, or no longer reads.

package telemetry

import (
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// outputTimeout is how long a line waits for a reader that does not read.
	outputTimeout = time.Second
	// outputChunk is how much can be written to a pipe that has room, without blocking (POSIX' PIPE_BUF is at least that on
	// Linux).
	outputChunk = 4096
)

// NewProcessLogger returns the logger of a process, which writes to file. From then on writing to a pipe without a reader is an
// error, not the end of the process. Lines that a reader does not take are lost after a second, and counted once it reads again.
func NewProcessLogger(file *os.File, level slog.Level, format string) *slog.Logger {
	signal.Ignore(syscall.SIGPIPE)
	o := &output{file: file, timeout: outputTimeout}
	o.found = func(lost int) {
		NewLogger(file, level, format).Warn("Lines of the log are lost, its reader did not read", "lines", lost)
	}
	return NewLogger(o, level, format)
}

// output writes to a file that may be a pipe whose reader does not read.
type output struct {
	file    *os.File
	timeout time.Duration
	// found is called when the reader reads again.
	found func(lost int)

	mu   sync.Mutex
	lost int // the lines since the reader last read
}

// Write implements io.Writer. It writes one line.
func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	timeout := o.timeout
	if o.lost > 0 {
		timeout = 0 // waiting again and again would slow the process down
	}
	if !writable(o.file, timeout) {
		o.lost++
		return len(line), nil
	}
	if o.lost > 0 {
		o.found(o.lost)
		o.lost = 0
	}
	for rest := line; len(rest) > 0; {
		chunk := rest[:min(len(rest), outputChunk)]
		if !writable(o.file, o.timeout) {
			o.lost++
			break
		}
		if n, err := o.file.Write(chunk); err != nil {
			return len(line) - len(rest) + n, err
		}
		rest = rest[len(chunk):]
	}
	return len(line), nil
}
