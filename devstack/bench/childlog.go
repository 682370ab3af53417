// The log of a process is how the bench knows when it is ready and what it does, and why it has failed.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine is where a longer line is broken, so that one without an end does not fill the memory.
	maxLine = 64 << 10
	// keptLines is how much of a log is shown when something has failed.
	keptLines = 15
	// keptMarks is how many lines of one message wait to be looked at; more are dropped.
	keptMarks = 64
)

// mark is a line of the log with a message that somebody waits for.
type mark struct {
	Time time.Time `json:"time"`
	Msg  string    `json:"msg"`
}

// childLog is where a process of the product logs to, in JSON: it keeps the last lines, and passes on the lines with
// certain messages.
type childLog struct {
	marks map[string]chan mark

	mu      sync.Mutex
	pending []byte   // a line that has not ended yet
	last    []string // lines
}

func newChildLog(messages ...string) *childLog {
	l := &childLog{marks: make(map[string]chan mark)}
	for _, m := range messages {
		l.marks[m] = make(chan mark, keptMarks)
	}
	return l
}

// Write takes the lines that end in p and keeps the rest.
func (l *childLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, p...)
	for {
		line, rest, ended := bytes.Cut(l.pending, []byte{'\n'})
		if !ended && len(l.pending) < maxLine {
			return len(p), nil
		}
		l.take(line)
		l.pending = rest
	}
}

func (l *childLog) take(line []byte) {
	l.last = append(l.last, string(line))
	l.last = l.last[max(0, len(l.last)-keptLines):]
	var m mark
	if err := json.Unmarshal(line, &m); err != nil {
		return // a panic, perhaps
	}
	select {
	case l.marks[m.Msg] <- m: // nil, and so never ready, for most messages
	default:
	}
}

// end returns the last lines.
func (l *childLog) end() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(l.last, string(l.pending)), "\n")
}

// errSilent says that a message was not logged in time.
var errSilent = errors.New("nothing was logged")

// await waits until the message is logged, whenever that was.
func (l *childLog) await(ctx context.Context, message string) error {
	_, err := l.after(ctx, message, time.Time{})
	return err
}

// after returns the time of the first line with the message that was logged at or after the given time.
func (l *childLog) after(ctx context.Context, message string, since time.Time) (time.Time, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, readyTimeout, errSilent)
	defer cancel()
	for {
		select {
		case m := <-l.marks[message]:
			if !m.Time.Before(since) {
				return m.Time, nil
			}
		case <-waiting.Done():
			return time.Time{}, fmt.Errorf("waiting for the line %q of its log: %w", message, context.Cause(waiting))
		}
	}
}
