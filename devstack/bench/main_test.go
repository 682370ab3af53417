package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain makes the test binary stand for the programs that the bench starts, by the name that it is called by.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == workerProgram {
		os.Exit(pretend())
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args string
		json, big  bool
		only, err  string
	}{
		{name: "all", args: "-bin x", only: "sync settings index workers endpoint mails latency status consoles"},
		{name: "JSON", args: "--bin x --json --big", json: true, big: true, only: "sync settings index workers endpoint mails latency status consoles"},
		{name: "some, in the order of the table", args: "-bin x -only status,sync", only: "sync status"},
		{name: "no directory", args: "-json", err: "-bin is missing"},
		{name: "an argument", args: "-bin x sync", err: `unexpected argument "sync"`},
		{name: "no such section", args: "-bin x -only sync,speed", err: `there is no "speed"; it must be a list of sync, settings, index, workers, endpoint, mails, latency, status, consoles`},
		{name: "no such flag", args: "-bin x -fast", err: "not defined: -fast"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var said bytes.Buffer
			a, err := parse(strings.Fields(tt.args), &said)
			if said.Len() > 0 {
				t.Errorf("it printed %q", said.String())
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var only []string
			for _, s := range a.only {
				only = append(only, s.name)
			}
			if a.json != tt.json || a.big != tt.big || strings.Join(only, " ") != tt.only {
				t.Errorf("got JSON %v, big %v, %q; want %v, %v, %q", a.json, a.big, only, tt.json, tt.big, tt.only)
			}
			if !filepath.IsAbs(a.bin) {
				t.Errorf("the directory is %q, which is another one elsewhere", a.bin)
			}
		})
	}
}

func TestHelpNamesAll(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	if _, err := parse([]string{"--help"}, &said); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("error %v, want %v", err, flag.ErrHelp)
	}
	for _, want := range append(sectionNames(), "make bench", "-json", "-big", "-only list", "-bin directory") {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the help does not speak of %q", want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string
		environ string
		status  int
		says    string
	}{
		{"help", []string{"-help"}, "", 0, "Usage: bench"},
		{"no directory", nil, "", exitUsage, "bench: -bin is missing"},
		{"no servers", []string{"-bin", "."}, "", exitFailure, "run the bench with devstack"},
		{"a million on FerretDB", []string{"-bin", ".", "-big"}, "mongodb://127.0.0.1", exitFailure, "install mongod"},
		{"no programs", []string{"-bin", "."}, "mongodb://127.0.0.1", exitFailure, "looking for the programs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("MONGODB_URI", tt.environ)
			t.Setenv("REDIS_PORT", "1")
			t.Setenv("DEVSTACK_MONGODB", embeddedMongoDB)
			said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer said.Close()
			var out bytes.Buffer
			if status := run(tt.args, &out, said); status != tt.status {
				t.Errorf("exit status %d, want %d", status, tt.status)
			}
			text, err := os.ReadFile(said.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), tt.says) || out.Len() > 0 {
				t.Errorf("it said %q, want %q; on stdout %q", text, tt.says, out.String())
			}
		})
	}
}

func TestProgramsOf(t *testing.T) {
	t.Parallel()
	chosen, err := choose("latency,status")
	if err != nil {
		t.Fatal(err)
	}
	if programs := strings.Join(programsOf(chosen), " "); programs != "api worker" {
		t.Errorf("they need %q, want the API and the worker", programs)
	}
}
