package cli_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// The output for the shells' completion.
func TestCompletion(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	jobs := []string{waitingJob, activeJob, delayedJob, completedJob, failedJob}
	f.on("GET /jobs?pageSize=100", 200, list("5", "1", "100", jobs...))
	f.on("GET /jobs?pageSize=100&state=failed", 200, list("1", "1", "100", failedJob))
	f.on("GET /history?limit=100", 200, data(historyList))
	types := []string{"user-sync\tUser sync", "project-sync\tProject sync", "issue-sync\tIssue sync", "welcome-mail\tWelcome mail"}
	all := append(slices.Clone(types), "all\tAll job types")
	for _, test := range []struct {
		args string
		want []string
	}{
		{"trigger ", types},
		{"trigger user-sync ", nil},
		{"pause ", all},
		{"resume ", all},
		{"retry --failed ", all},
		{"cancel --waiting ", all},
		{"status ", types},
		{"jobs --job ", types},
		{"cleanup --job ", all},
		{"job-types ", nil},
		{"jobs --state ", []string{"waiting", "active", "delayed", "completed", "failed", "cancelled"}},
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
		{"history ", []string{
			"1795494000000:user-sync\tcompleted 2026-11-24 04:20:04", "1795493000000:user-sync:pause:abcdefgh\tpause 2026-11-24 04:03:20",
			"1795492000000:user-sync:cleanup:abcdefgh\tcleanup 2026-11-24 03:46:40", "1795408900000:issue-sync:cancel:abcdefgh\tcancel 2026-11-23 04:41:40",
			"1795408800000:issue-sync:zzzzzzzz\tfailed 2026-11-23 04:41:10",
		}},
		{"history --job ", types},
		{"history --state ", []string{"completed", "failed", "cancelled", "removed"}},
		{"history --kind ", []string{"run", "pause", "resume", "cleanup", "cancel"}},
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

// Without an answer from the server there is nothing to offer, and the user waits for a second at most.
func TestCompletionWithoutAServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	f.handle("GET /jobs?pageSize=100", hang)
	f.handle("GET /job-types", hang)
	for _, server := range []string{f.URL, "http://127.0.0.1:1", "nonsense"} {
		for _, args := range []string{"job ", "trigger ", "jobs --job "} {
			start := time.Now()
			p := run(t, "", append([]string{"__complete", "--server", server}, strings.Split(args, " ")...)...)
			if took := time.Since(start); p.status != 0 || !strings.HasPrefix(p.out, ":36\n") || took > 5*time.Second {
				t.Errorf("%s: %q: after %s %+v", server, args, took, p)
			}
		}
	}
}
