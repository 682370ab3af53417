package cli_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// call runs the binary that was built.
func call(t *testing.T, env []string, args ...string) printed {
	t.Helper()
	cmd, out, errOut := command(t, env, args...)
	return printed{exitOf(t, cmd.Run()), out.String(), errOut.String()}
}

func command(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, out, errOut *bytes.Buffer) {
	t.Helper()
	out, errOut = new(bytes.Buffer), new(bytes.Buffer)
	cmd = exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"HOME=" + cmd.Dir, "TZ=UTC"}, env...)
	cmd.Stdout, cmd.Stderr = out, errOut
	return cmd, out, errOut
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	if exited == nil {
		return 0
	}
	return exited.ExitCode()
}

// The exit statuses, which scripts rely on.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	f.on("GET /jobs/1795495826751:user-sync:mq4z2etl", 200, data(completedJob2))
	f.on("POST /jobs/trigger/issue-sync", 200, `{"success":true,"message":"Issue sync (full) triggered successfully",
		"data":{"jobId":"1795408800000:issue-sync:zzzzzzzz","coalesced":false}}`)
	broken := newFake(t)
	broken.on("GET /health", 200, incomplete)
	broken.on("GET /jobs/1795408800000:issue-sync:zzzzzzzz", 200, data(cancelledJob))
	broken.on("GET /history?limit=20", 503, `{"success":false,"message":"MongoDB is not available; try again later"}`)
	broken.on("GET /schedules", 503, `{"success":false,"message":"Redis is not available; try again later"}`)
	broken.on("GET /jobs/status?job=all", 401, `{"success":false,"message":"there was no API key"}`)
	broken.on("POST /notify/test", 200, `{"success":true,"message":"The test was not delivered: no","data":{"id":"1","delivered":false,"error":"no"}}`)
	broken.on("POST /jobs/retry-failed", 200, `{"success":true,"message":"so far","data":{"retried":7,"left":12}}`)
	broken.on("POST /jobs/cancel-waiting", 200, `{"success":true,"message":"so far","data":{"removed":7,"left":1}}`)
	broken.on("POST /jobs/pause", 403, `{"success":false,"message":"this key may only read"}`)
	broken.on("POST /jobs/resume", 502, `<html>Bad Gateway</html>`)
	broken.on("GET /jobs?page=1&pageSize=20", 200, `<html>It works!</html>`)
	broken.handle("POST /jobs/cleanup", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere/", http.StatusMovedPermanently)
	})
	broken.handle("GET /jobs/1", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	const nobody = "http://127.0.0.1:1"

	for _, test := range []struct {
		server, args string
		status       int
		stderr       string // a part of it
	}{
		{f.URL, "status", 0, ""},
		{f.URL, "health", 0, ""},
		{f.URL, "job 1795408800000:issue-sync:zzzzzzzz", 0, ""}, // asking about a failed one has not failed
		{f.URL, "trigger user-sync --full --wait", 0, "User sync (full) triggered successfully: 1795495826751:user-sync:mq4z2etl\n100 %  completed\n"},
		{f.URL, "--help", 0, ""},
		{f.URL, "trigger --help", 0, ""},
		{f.URL, "--version", 0, ""},
		{f.URL, "completion bash", 0, ""},
		{f.URL, "completion zsh", 0, ""},
		{f.URL, "completion fish", 0, ""},
		{"", "", 0, ""},

		{f.URL, "trigger issue-sync --full --wait", 1, "codexctl: job 1795408800000:issue-sync:zzzzzzzz failed: all 100 issues of a batch failed: not authorized\n"},
		{f.URL, "job 1795408800000:issue-sync:zzzzzzzz --wait", 1, "failed: all 100"},
		{broken.URL, "job 1795408800000:issue-sync:zzzzzzzz --wait", 1, "codexctl: job 1795408800000:issue-sync:zzzzzzzz was cancelled\n"},
		{broken.URL, "health", 1, "codexctl: not healthy: a live worker is missing\n"},

		{broken.URL, "notify-test", 1, "codexctl: the test was not delivered\n"},
		{broken.URL, "retry --failed all", 1, "codexctl: 12 left; call it again\n"},
		{broken.URL, "cancel --waiting all --output json", 1, "codexctl: 1 left; call it again\n"},

		{f.URL, "retry", 2, "accepts 1 arg(s), received 0; see codexctl retry --help\n"},
		{f.URL, "retry 1 --failed all", 2, "there were --failed and the ID of a job; it must be one of them; see codexctl retry --help\n"},
		{f.URL, "cancel 1 --waiting all", 2, "there were --waiting and the ID of a job; it must be one of them; see codexctl cancel --help\n"},
		{f.URL, "cancel --waiting=", 2, "it was empty"},
		{f.URL, "stauts", 2, `unknown command "stauts"`},
		{f.URL, "status --wait", 2, "unknown flag: --wait; see codexctl status --help\n"},
		{f.URL, "trigger", 2, "see codexctl trigger --help\n"},
		{f.URL, "job", 2, "see codexctl job --help\n"},
		{f.URL, "jobs all", 2, "see codexctl jobs --help\n"},
		{f.URL, "jobs --state done", 2, `--state was "done"; it must be waiting, active, delayed, completed, failed`},
		{f.URL, "jobs --page 0", 2, "--page was 0; it must be 1 or more"},
		{f.URL, "jobs --page-size 101", 2, "--page-size was 101; it must be from 1 to 100"},
		{f.URL, "history --state active", 2, `--state was "active"; it must be completed, failed, cancelled, removed`},
		{f.URL, "history --kind runs", 2, `--kind was "runs"; it must be run, pause, resume, cleanup, cancel`},
		{f.URL, "history --limit 101", 2, "--limit was 101; it must be from 1 to 100"},
		{f.URL, "history --since yesterday", 2, `--since was "yesterday"; it must be how long ago, such as 36h or 7d, or an instant`},
		{f.URL, "history --until -1h", 2, `--until was "-1h"; it must be how long ago`},
		{f.URL, "history --since 99999999d", 2, "--since was"},
		{f.URL, "history --all --limit 5", 2, "none of the others can be"},
		{f.URL, "history 1795494000000:user-sync --job user-sync", 2, "--job was given with an ID; it must be left out"},
		{f.URL, "history 1 2", 2, "see codexctl history --help"},
		{f.URL, "history --text=", 2, "it was empty"},
		{f.URL, "trigger user-sync --batch-size many", 2, "batch-size"},
		{f.URL, "trigger user-sync --batch-size 0", 2, "--batch-size was 0; it must be 1 or more"},
		{f.URL, "trigger user-sync --data [1]", 2, "--data was not a JSON object"},
		{f.URL, "trigger user-sync --delay -1s", 2, "--delay was -1s; it must be 0s or more"},
		{f.URL, "trigger user-sync --delay 10", 2, "delay"},
		{f.URL, "trigger user-sync --run-at tomorrow", 2, `--run-at was "tomorrow"; it must be an instant with a zone, such as 2026-11-24T04:50:00Z`},
		{f.URL, "trigger user-sync --run-at 2026-11-24T04:50:00", 2, "--run-at was"},
		{f.URL, "trigger user-sync --delay 1s --run-at 2026-11-24T04:50:00Z", 2, "none of the others can be"},
		{f.URL, "trigger user-sync --data {} --full", 2, "none of the others can be"},
		{f.URL, "cleanup --grace 2", 2, "grace"},
		{f.URL, "cleanup --grace -1h", 2, "--grace was -1h0m0s; it must be from 0s to 8760h"},
		{f.URL, "pause ''", 2, "an argument was empty; it must have a value, or be left out"},
		{f.URL, "status ''", 2, "an argument was empty"},
		{f.URL, "jobs --state=", 2, `invalid argument "" for "--state" flag: it was empty; it must have a value, or be left out`},
		{f.URL, "jobs --job=", 2, "it was empty"},
		{f.URL, "cleanup --job=", 2, "it was empty"},
		{f.URL, "jobs --state failed --state active", 2, `invalid argument "active" for "--state" flag: it was given twice; it must be given once`},
		{f.URL, "cleanup --job user-sync --job issue-sync", 2, "it was given twice"},
		{f.URL, "trigger user-sync --data {} --data {}", 2, "it was given twice"},
		{f.URL, "status --output yaml", 2, `--output was "yaml"; it must be "table" or "json"`},
		{f.URL, "status --watch --interval 1ms", 2, "--interval was 1ms; it must be 100ms or longer"},
		{"127.0.0.1:4000", "status", 2, `the API's URL was "127.0.0.1:4000"; it must be one such as http://127.0.0.1:4000`},
		{"http://me:secret@", "status", 2, `the API's URL was "http://me:xxxxx@"`},
		{f.URL, "status --key-file /nonexistent", 2, "reading the API key: open /nonexistent"},
		{f.URL, "status --ca-file /dev/null", 2, "reading certificates: there is none in /dev/null"},
		{f.URL, "status --config /nonexistent.yaml", 2, "reading the configuration file /nonexistent.yaml"},

		{nobody, "status", 3, "codexctl: asking for the status: the server could not be reached"},
		{nobody, "trigger user-sync --wait", 3, "codexctl: triggering user-sync: the server could not be reached"},
		{nobody, "health", 3, "codexctl: asking for the health: the server could not be reached"},
		{f.URL, "job 1:user-sync", 3, `codexctl: asking for job 1:user-sync: the server answered 404: there is no job "1:user-sync"` + "\n"},
		{f.URL, "job 1:user-sync --wait", 3, "404"},
		{f.URL, "history 1:user-sync", 3, `codexctl: asking for entry 1:user-sync of the history: the server answered 404: there is no entry "1:user-sync" in the history`},
		{broken.URL, "history", 3, "codexctl: listing the history: the server answered 503: MongoDB is not available"},
		{f.URL, "job ..", 3, `404: there is nothing that is called ".."`},
		{f.URL, "trigger users", 3, `codexctl: triggering users: the server answered 404: the job was "users"; it must be "user-sync"` + "\n"},
		{f.URL, "cancel 1795494000000:user-sync", 3, "409: the job is completed"},
		{f.URL, "retry 1795494000000:user-sync", 3, "409: the job is completed"},
		{broken.URL, "status", 3, "401: there was no API key"},
		{broken.URL, "status --watch", 3, "401: there was no API key"},
		{broken.URL, "pause", 3, "403: this key may only read"},
		{broken.URL, "resume", 3, "502: Bad Gateway"},
		{broken.URL, "schedules", 3, "503: Redis is not available; try again later"},
		{broken.URL, "jobs", 3, "the server's answer is not one of codex-jobs"},
		{broken.URL, "cleanup", 3, "301: it redirects to https://elsewhere/"},
		{broken.URL, "job 1", 3, "the server could not be reached"},
	} {
		t.Run(test.args+" "+test.server, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(strings.ReplaceAll(test.args, "''", "EMPTY"))
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "EMPTY", "")
			}
			if test.server != "" {
				args = append(args, "--server", test.server)
			}
			p := call(t, nil, args...)
			if p.status != test.status || !strings.Contains(p.err, test.stderr) || (p.err == "") != (test.stderr == "") {
				t.Errorf("the exit status is %d, want %d; on stderr %q, want %q; on stdout %q", p.status, test.status, p.err, test.stderr, p.out)
			}
			if lines := strings.Count(p.err, "codexctl: "); test.status != 0 && lines != 1 {
				t.Errorf("the error is told %d times: %q", lines, p.err)
			}
			if test.status >= 2 && p.out != "" {
				t.Errorf("on stdout %q", p.out)
			}
		})
	}
}

// completedJob2 is the job that newSystem's trigger starts.
var completedJob2 = strings.ReplaceAll(completedJob, "1795494000000:user-sync", "1795495826751:user-sync:mq4z2etl")

// A signal ends each command at once, and the job that it waits for goes on.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, args, stderr string
		signal             os.Signal
	}{
		{"waiting", "job 1795495826751:user-sync:mq4z2etl --wait", "codexctl: interrupted; the job goes on; to wait for it again: codexctl job 1795495826751:user-sync:mq4z2etl --wait\n", os.Interrupt},
		{"waiting, by SIGTERM", "trigger user-sync --wait", "codexctl: interrupted; the job goes on", syscall.SIGTERM},
		{"triggering", "trigger project-sync --wait", "codexctl: interrupted; whether the job was triggered is not known\n", os.Interrupt},
		{"watching", "status --watch --interval 1h", "codexctl: interrupted\n", os.Interrupt},
		{"asking", "schedules", "codexctl: interrupted\n", os.Interrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newSystem(t)
			hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
			f.handle("POST /jobs/trigger/project-sync", hang)
			f.handle("GET /schedules", hang)
			cmd, _, errOut := command(t, nil, append(strings.Fields(test.args), "--server", f.URL)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, "a request", func() bool {
				last := append([]string{""}, f.seen()...)[len(f.seen())]
				return last != "" && !strings.HasPrefix(last, "POST /jobs/trigger/user-sync")
			})
			if err := cmd.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			signalled := time.Now()
			status := exitOf(t, cmd.Wait())
			if status != 130 || !strings.HasSuffix(errOut.String(), test.stderr) && !strings.Contains(errOut.String(), test.stderr) {
				t.Errorf("the exit status is %d, on stderr %q", status, errOut)
			}
			if took := time.Since(signalled); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			for _, request := range f.seen() {
				if strings.HasPrefix(request, "DELETE") {
					t.Errorf("it was cancelled: %s", request)
				}
			}
		})
	}
}

// Neither the output nor an error shows the key.
func TestTheKeyIsNotShown(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-k3y"
	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile, twoLines := write("key", secret+"\n"), write("two", secret+"\nx"+secret)
	config := write("config.yaml", "key: "+secret+"\nserver: http://127.0.0.1:1\n")
	wrong := write("wrong.yaml", "key: "+secret+"\nsevrer: http://127.0.0.1:1\n")
	noYAML := write("no.yaml", "key: \""+secret+"\n  : : :\n")
	env := []string{"CODEX_API_KEY=" + secret}
	f := newSystem(t)
	broken := newFake(t)
	for _, test := range []struct {
		env    []string
		args   []string
		status int
	}{
		{env, []string{"status", "--server", f.URL}, 0},
		{env, []string{"--help"}, 0},
		{env, []string{"status", "--help"}, 0},
		{env, []string{"status", "--server", broken.URL}, 3},
		{env, []string{"status", "--server", "http://127.0.0.1:1"}, 3},
		{env, []string{"nonsense"}, 2},
		{[]string{"CODEX_API_KEY=" + secret + "\n" + secret}, []string{"status"}, 2},
		{nil, []string{"status", "--server", f.URL, "--key-file", keyFile}, 0},
		{nil, []string{"status", "--key-file", twoLines}, 2},
		{nil, []string{"status", "--config", config}, 3},
		{nil, []string{"status", "--config", wrong}, 2},
		{nil, []string{"status", "--config", noYAML}, 2},
	} {
		p := call(t, test.env, test.args...)
		if p.status != test.status {
			t.Errorf("%q: the exit status is %d, want %d: %s", test.args, p.status, test.status, p.err)
		}
		if strings.Contains(p.out+p.err, secret) {
			t.Errorf("%q: the key is in the output: %s%s", test.args, p.out, p.err)
		}
	}
}

// As in `codexctl jobs | head`: it ends as other tools do, and says nothing.
func TestOutputWithoutAReader(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	cmd, _, errOut := command(t, nil, "job-types", "--server", newSystem(t).URL)
	cmd.Stdout = write
	err = cmd.Run()
	_ = write.Close()
	var exited *exec.ExitError
	if !errors.As(err, &exited) || exited.String() != "signal: broken pipe" || errOut.Len() > 0 {
		t.Errorf("it ended with %v, and wrote %q", err, errOut)
	}
}
