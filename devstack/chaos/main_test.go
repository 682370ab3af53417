package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args string
		status     int
		says       string
	}{
		{"help", "--help", 0, "no tick missed"},
		{"no bin", "", exitUsage, "-bin is missing"},
		{"too short", "-bin . -for 1s", exitUsage, "at least 10s"},
		{"no number", "-bin . -seed x", exitUsage, "seed"},
		{"too much", "-bin . now", exitUsage, "unexpected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out, errOut bytes.Buffer
			if status := run(strings.Fields(tt.args), &out, &errOut); status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			if !strings.Contains(errOut.String(), tt.says) {
				t.Errorf("it says %q, want %q in it", errOut.String(), tt.says)
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	given, err := parse(strings.Fields("-bin . -for 3m -seed 0"), nil)
	if err != nil || given.seed != 0 || given.length != 3*time.Minute {
		t.Errorf("%+v, %v", given, err)
	}
	one, _ := parse(strings.Fields("-bin ."), nil)
	if other, _ := parse(strings.Fields("-bin ."), nil); one.seed == other.seed {
		t.Errorf("two runs have the seed %d", one.seed)
	}
}

func TestLineOfALog(t *testing.T) {
	t.Parallel()
	var lines []logLine
	log := &procs.Log{Each: func(e procs.Entry) { lines = append(lines, newLogLine(e)) }}
	text := `{"time":"2026-11-24T04:00:05Z","level":"INFO","msg":"Tick enqueued","job":"user-sync","tick":"2026-11-24T04:00:05.000Z"}
{"msg":"Starting range","jobId":"x","range":0,"attempt":2}
{"msg":"of another kind","attempt":"first"}
`
	if _, err := log.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 3 || lines[0].Msg != "Tick enqueued" || lines[0].Level != "INFO" || lines[0].Job != "user-sync" ||
		lines[0].Tick != "2026-11-24T04:00:05.000Z" || !lines[0].Time.Equal(at(5)) ||
		lines[1].subject() != "x/0" || lines[1].Attempt != 2 || lines[2].Msg != "of another kind" || lines[2].Attempt != 0 {
		t.Errorf("lines: %+v", lines)
	}
}

func TestBehindAProxy(t *testing.T) {
	t.Parallel()
	changed, server, err := behind("mongodb://u:p@host:1/?maxPoolSize=1", "127.0.0.1:2")
	if want := "mongodb://u:p@127.0.0.1:2/?directConnection=true&maxPoolSize=1"; changed != want || server != "host:1" || err != nil {
		t.Errorf("%q, %q, %v; want %q", changed, server, err, want)
	}
	for _, uri := range []string{"mongodb+srv://host", "mongodb://a:1,b:2", "mongodb://host"} {
		if _, _, err := behind(uri, "127.0.0.1:2"); err == nil {
			t.Errorf("%q can be put behind a proxy", uri)
		}
	}
}
