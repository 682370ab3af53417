// The lines of the processes' logs.

package main

import (
	"strconv"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

// logLine has the fields of a line that chaos reads.
type logLine struct {
	Time              time.Time
	Level, Msg        string
	Job, JobID, Error string
	Tick              string
	Range             *int
	Attempt           int
}

// newLogLine reads a line. A field of another type than usual counts as missing.
func newLogLine(e procs.Entry) logLine {
	text := func(name string) string {
		value, _ := e.Attrs[name].(string)
		return value
	}
	line := logLine{
		Time: e.Time(), Level: text("level"), Msg: e.Msg(),
		Job: text("job"), JobID: text("jobId"), Error: text("error"), Tick: text("tick"),
	}
	if number, ok := e.Attrs["range"].(float64); ok {
		index := int(number)
		line.Range = &index
	}
	if number, ok := e.Attrs["attempt"].(float64); ok {
		line.Attempt = int(number)
	}
	return line
}

// subject is the run or the range that the line is about.
func (l logLine) subject() string {
	if l.Range == nil {
		return l.JobID
	}
	return l.JobID + "/" + strconv.Itoa(*l.Range)
}
