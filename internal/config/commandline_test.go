package config_test

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/config"
	"github.com/codex-api/codex-jobs/internal/version"
)

// run is the result of a deployable's command line.
type run struct {
	config.Config
	status   int
	ok       bool
	out, err string
}

func commandLine(args ...string) run {
	var out, errOut strings.Builder
	c, status, ok := config.FromCommandLine("api", "does something", codex.Registry(), args, &out, &errOut)
	return run{c, status, ok, out.String(), errOut.String()}
}

func TestCommandLine(t *testing.T) {
	setup(t, "PORT=4001\n")
	r := commandLine()
	if !r.ok || r.status != 0 || r.out != "" || r.err != "" || r.HTTP.Port != 4001 || r.Registry == nil {
		t.Errorf("without arguments: %+v", r)
	}
	for _, test := range []struct{ arg, err string }{
		{"--verbose", "api: flag provided but not defined: -verbose; see api --help\n"},
		{"start", "api: unexpected argument \"start\"; see api --help\n"},
		{"--version=x", `api: invalid boolean value "x" for -version`},
	} {
		if r := commandLine(test.arg); r.ok || r.status != 2 || r.out != "" || !strings.HasPrefix(r.err, test.err) {
			t.Errorf("%s: %+v", test.arg, r)
		}
	}
}

func TestTryEndpoint(t *testing.T) {
	setup(t, "", "USER_SYNC_URL=http://app/user-sync")
	for _, test := range []struct{ program, job, err string }{
		{"worker", "user-sync", ""},
		{"worker", "project-sync", "worker: --try-endpoint project-sync: it has no endpoint; set PROJECT_SYNC_URL\n"},
		{"worker", "no-sync", "worker: --try-endpoint no-sync: it must be one of the syncs without work of their own: user-sync, project-sync, issue-sync\n"},
		{"api", "user-sync", "api: flag provided but not defined: -try-endpoint; see api --help\n"},
	} {
		var out, errOut strings.Builder
		c, status, ok := config.FromCommandLine(test.program, "", codex.Registry(), []string{"--try-endpoint", test.job}, &out, &errOut)
		if ok != (test.err == "") || errOut.String() != test.err || ok && (status != 0 || c.TryEndpoint != test.job) || !ok && status != 2 {
			t.Errorf("%+v: %v, %d, %q", test, ok, status, errOut.String())
		}
	}
	var out, errOut strings.Builder
	_, status, ok := config.FromCommandLine("worker", "", codex.Registry(), []string{"--records", "users.ndjson"}, &out, &errOut)
	if ok || status != 2 || errOut.String() != "worker: --records is set without --try-endpoint; set both or neither\n" {
		t.Errorf("records without an endpoint: %v, %d, %q", ok, status, errOut.String())
	}
}

func TestVersion(t *testing.T) {
	setup(t, "", "PORT=no number") // a wrong setting, which does not matter here
	for _, arg := range []string{"--version", "-version"} {
		r := commandLine(arg)
		if r.ok || r.status != 0 || r.err != "" || r.out != "api "+version.String()+"\n" {
			t.Errorf("%s: %+v", arg, r)
		}
	}
}

func TestHelpListsTheSettingsOfTheProgram(t *testing.T) {
	setup(t, "", "PORT=no number", "REDIS_PASSWORD="+secret)
	for _, arg := range []string{"--help", "-help", "-h"} {
		r := commandLine(arg)
		if r.ok || r.status != 0 || r.err != "" || !strings.HasPrefix(r.out, "api: does something\n") || strings.Contains(r.out, secret) {
			t.Errorf("%s: %+v", arg, r)
		}
		for _, s := range config.Settings(codex.Registry()) {
			value := cmp.Or(s.Default, "-")
			row := regexp.MustCompile(`(?m)^ +` + s.Name + ` +` + regexp.QuoteMeta(value) + ` +` + regexp.QuoteMeta(s.Purpose) + `$`)
			if used := slices.Contains(s.Programs, "api"); row.MatchString(r.out) != used {
				t.Errorf("%s shows %s, %s, %q: %v, want %v:\n%s", arg, s.Name, value, s.Purpose, !used, used, r.out)
			}
		}
	}
}

func TestWrongSettingsEndTheStart(t *testing.T) {
	setup(t, "", "PORT=0", "REDIS_DB=x", "MONGODB_URI=user:"+secret+"@host", "REDIS_PASSWORD="+secret, "USER_SYNC_INTERVAL=7m")
	r := commandLine()
	if r.ok || r.status != 2 || r.out != "" || strings.Contains(r.err, secret) {
		t.Errorf("got %+v", r)
	}
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	if len(lines) != 5 || lines[0] != "api: these settings are wrong:" {
		t.Fatalf("got\n%s", r.err)
	}
	for i, want := range []string{"  REDIS_DB must be ", "  MONGODB_URI must be ", "  PORT must be ", "  USER_SYNC_INTERVAL must be "} {
		if !strings.HasPrefix(lines[i+1], want) {
			t.Errorf("got %q, want %q", lines[i+1], want)
		}
	}
}

func TestSettingsAreComplete(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, s := range config.Settings(codex.Registry()) {
		if seen[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
		if !regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`).MatchString(s.Name) || s.Purpose == "" || s.MustBe == "" || s.Theme == "" || len(s.Programs) == 0 {
			t.Errorf("got %+v", s)
		}
	}
	for _, name := range []string{"REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB", "MONGODB_URI", "MONGODB_DATABASE", "HOST", "PORT", "LOG_LEVEL", "LOG_FORMAT"} {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

// The log's first line has no settings that mean nothing to the program.
func TestShownSettingsAreThoseOfTheProgram(t *testing.T) {
	setup(t, "")
	for program, want := range map[string]string{
		"api":       "redis namespace mongodb database history schedules apiKeys authDisabled tls traces",
		"scheduler": "redis namespace schedules traces",
		"worker":    "redis namespace mongodb database history concurrency batchSize writers rangeSize schedules notify traces",
	} {
		var out strings.Builder
		c, _, ok := config.FromCommandLine(program, "", codex.Registry(), nil, &out, &out)
		if !ok {
			t.Fatal(out.String())
		}
		var names []string
		for _, attr := range c.LogValue().Group() {
			names = append(names, attr.Key)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s shows %s, want %s", program, got, want)
		}
	}
}
