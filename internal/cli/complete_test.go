package cli_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/cli"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// What the shells' completion gets to see.
func TestCompletion(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	jobs := []string{waitingJob, activeJob, delayedJob, completedJob, failedJob}
	f.on("GET /jobs?pageSize=100", 200, list("5", "1", "100", jobs...))
	f.on("GET /jobs?pageSize=100&state=failed", 200, list("1", "1", "100", failedJob))
	types := []string{"user-sync", "project-sync", "issue-sync"}
	for _, test := range []struct {
		args string
		want []string
	}{
		{"trigger ", types},
		{"trigger user-sync ", nil},
		{"pause ", types},
		{"resume ", types},
		{"status ", types},
		{"jobs --job ", types},
		{"cleanup --job ", types},
		{"jobs --state ", []string{"waiting", "active", "delayed", "completed", "failed"}},
		{"jobs --output ", []string{"table", "json"}},
		{"job ", []string{
			"1795495829000:user-sync:aaaaaaaa\twaiting syncType=incremental", "1795495826751:user-sync:mq4z2etl\tactive batchSize=50 syncType=full",
			"1795495800000:project-sync\tdelayed syncType=incremental", "1795494000000:user-sync\tcompleted syncType=incremental",
			"1795408800000:issue-sync:zzzzzzzz\tfailed syncType=full",
		}},
		{"cancel ", []string{
			"1795495829000:user-sync:aaaaaaaa\twaiting syncType=incremental", "1795495826751:user-sync:mq4z2etl\tactive batchSize=50 syncType=full",
			"1795495800000:project-sync\tdelayed syncType=incremental",
		}},
		{"retry ", []string{"1795408800000:issue-sync:zzzzzzzz\tfailed syncType=full"}},
		{"retry 1 ", nil},
		{"can", []string{"cancel\tRemove a job that waits, or stop one that is active"}},
	} {
		p := run(t, "", append([]string{"__complete", "--server", f.URL}, strings.Split(test.args, " ")...)...)
		lines := strings.Split(strings.TrimSpace(p.out), "\n")
		got := lines[:len(lines)-1] // the last one is for the shell
		if p.status != 0 || !slices.Equal(got, test.want) {
			t.Errorf("%q: %d %q, want %q", test.args, p.status, got, test.want)
		}
	}
}

// A server that does not answer does not keep anybody waiting.
func TestCompletionWithoutAServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.handle("GET /jobs?pageSize=100", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, server := range []string{f.URL, "http://127.0.0.1:1", "nonsense"} {
		start := time.Now()
		p := run(t, "", "__complete", "--server", server, "job", "")
		if took := time.Since(start); p.status != 0 || !strings.HasPrefix(p.out, ":4\n") || took > 5*time.Second {
			t.Errorf("%s: after %s %+v", server, took, p)
		}
	}
}

// What is completed is what is shipped.
func TestJobTypes(t *testing.T) {
	t.Parallel()
	if want := tasks.Default().Names(); !slices.Equal(cli.JobTypes, want) {
		t.Errorf("the job types are %q, want %q", cli.JobTypes, want)
	}
}
