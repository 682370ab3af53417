// The log of a process says what it did, kept for people, and is read for what must be known.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"
)

const (
	// maxLine is where a longer line is broken, so that one without an end does not fill the memory.
	maxLine = 64 << 10
	// maxOdd is how many lines that are none of a log are kept of one life.
	maxOdd = 5
)

// logLine is a line of the log of a process, as far as anybody here reads it.
type logLine struct {
	Time    time.Time `json:"time"`
	Level   string    `json:"level"`
	Msg     string    `json:"msg"`
	Job     string    `json:"job"`
	JobID   string    `json:"jobId"`
	Tick    string    `json:"tick"`
	Range   *int      `json:"range"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error"`
}

// subject is the run or the range that the line is about.
func (l logLine) subject() string {
	if l.Range == nil {
		return l.JobID
	}
	return l.JobID + "/" + strconv.Itoa(*l.Range)
}

// childLog copies what a process writes into a file and passes each line on. A killed process may end in the middle of
// one.
type childLog struct {
	out  io.Writer
	line func(logLine)
	// odd are lines that are not the logger's: a panic, or what the race detector found.
	odd     []string
	pending []byte
}

// Write takes the lines that end in p and keeps the rest.
func (l *childLog) Write(p []byte) (int, error) {
	if n, err := l.out.Write(p); err != nil {
		return n, err
	}
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

func (l *childLog) take(text []byte) {
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	var line logLine
	var otherType *json.UnmarshalTypeError // of a value that nobody here reads in such a line
	if err := json.Unmarshal(text, &line); err != nil && !errors.As(err, &otherType) {
		if len(l.odd) < maxOdd {
			l.odd = append(l.odd, string(text))
		}
		return
	}
	l.line(line)
}

// end is for after the last line: what is pending was cut off, unless it is no line of a log at all.
func (l *childLog) end() {
	if len(l.pending) > 0 && l.pending[0] != '{' {
		l.take(l.pending)
	}
	l.pending = nil
}
