package cli_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Every command, as a table and as JSON: its request to the API, and its output.
func TestOutput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		args    string
		request string // the first one
		// data is the data of the API's answer, which --output json prints; "" when it prints something else.
		data string
	}{
		{"status", "status", "GET /jobs/status?job=all", allStatus},
		{"status-of-one", "status issue-sync", "GET /jobs/status?job=issue-sync", issueStatus},
		{"trigger", "trigger user-sync --full --batch-size 50", `POST /jobs/trigger/user-sync {"syncType":"full","batchSize":50}`,
			`{"jobId":"1795495826751:user-sync:mq4z2etl","coalesced":false}`},
		{"trigger-coalesced", "trigger project-sync", "POST /jobs/trigger/project-sync", `{"jobId":"1795495800000:project-sync","coalesced":true}`},
		{"trigger-delayed", "trigger issue-sync --full --delay 10m", `POST /jobs/trigger/issue-sync {"delay":600000,"syncType":"full"}`,
			`{"jobId":"1795496426751:issue-sync:mq4z2etl","coalesced":false,"runAt":"2026-11-24T05:00:26.751Z"}`},
		{"jobs", "jobs", "GET /jobs?page=1&pageSize=20", ""},
		{"jobs-first-page", "jobs --page-size 2", "GET /jobs?page=1&pageSize=2", ""},
		{"jobs-last-page", "jobs --page-size 2 --page 3", "GET /jobs?page=3&pageSize=2", ""},
		{"jobs-beyond", "jobs --page-size 2 --page 4", "GET /jobs?page=4&pageSize=2", ""},
		{"jobs-failed", "jobs --job issue-sync --state failed", "GET /jobs?job=issue-sync&page=1&pageSize=20&state=failed", ""},
		{"jobs-none", "jobs --job welcome-mail", "GET /jobs?job=welcome-mail&page=1&pageSize=20", ""},
		{"job-waiting", "job 1795495829000:user-sync:aaaaaaaa", "GET /jobs/1795495829000:user-sync:aaaaaaaa", waitingJob},
		{"job-active", "job 1795495826751:user-sync:mq4z2etl", "GET /jobs/1795495826751:user-sync:mq4z2etl", activeJob},
		{"job-delayed", "job 1795495800000:project-sync", "GET /jobs/1795495800000:project-sync", delayedJob},
		{"job-to-come", "job 1795496426751:issue-sync:mq4z2etl", "GET /jobs/1795496426751:issue-sync:mq4z2etl", laterJob},
		{"job-completed", "job 1795494000000:user-sync", "GET /jobs/1795494000000:user-sync", completedJob},
		{"job-failed", "job 1795408800000:issue-sync:zzzzzzzz", "GET /jobs/1795408800000:issue-sync:zzzzzzzz", failedJob},
		{"cancel-waiting", "cancel 1795495829000:user-sync:aaaaaaaa", "DELETE /jobs/1795495829000:user-sync:aaaaaaaa",
			`{"id":"1795495829000:user-sync:aaaaaaaa","state":"removed"}`},
		{"cancel-active", "cancel 1795495826751:user-sync:mq4z2etl", "DELETE /jobs/1795495826751:user-sync:mq4z2etl",
			`{"id":"1795495826751:user-sync:mq4z2etl","state":"cancelling"}`},
		{"retry", "retry 1795408800000:issue-sync:zzzzzzzz", "POST /jobs/1795408800000:issue-sync:zzzzzzzz/retry",
			`{"id":"1795408800000:issue-sync:zzzzzzzz","state":"waiting"}`},
		{"pause", "pause", "POST /jobs/pause {}", `{"message":"User sync jobs paused"}`},
		{"resume", "resume user-sync", `POST /jobs/resume {"job":"user-sync"}`, `{"message":"User sync jobs resumed"}`},
		{"cleanup", "cleanup --grace 48h --job user-sync", `POST /jobs/cleanup {"gracePeriodHours":48,"job":"user-sync"}`, `{"completed":3,"failed":1}`},
		{"history", "history", "GET /history?limit=20", historyList},
		{"history-all", "history --all", "GET /history?limit=100", ""},
		{"history-none", "history --job user-sync --state failed --kind run --since 7d --until 2026-11-24T05:00:00+01:00 --text ada --limit 5",
			"GET /history?from=2026-11-17T04%3A50%3A30.000Z&job=user-sync&kind=run&limit=5&state=failed&text=ada&to=2026-11-24T04%3A00%3A00.000Z", `{"entries":[]}`},
		{"history-run", "history 1795494000000:user-sync", "GET /history/1795494000000:user-sync", historyRun},
		{"history-cleanup", "history 1795492000000:user-sync:cleanup:abcdefgh", "GET /history/1795492000000:user-sync:cleanup:abcdefgh", historyCleanup},
		{"pause-all", "pause all", `POST /jobs/pause {"job":"all"}`, `{"message":"All jobs paused"}`},
		{"resume-all", "resume all", `POST /jobs/resume {"job":"all"}`, `{"message":"All jobs resumed"}`},
		{"retry-failed", "retry --failed user-sync", `POST /jobs/retry-failed {"job":"user-sync"}`, `{"retried":7,"left":0}`},
		{"cancel-waiting-all", "cancel --waiting all", `POST /jobs/cancel-waiting {"job":"all"}`, `{"removed":2,"left":0}`},
		{"notify-test", "notify-test", "POST /notify/test", `{"id":"1795495826751:notify:mq4z2etl","delivered":true,"status":204}`},
		{"schedules", "schedules", "GET /schedules", schedules},
		{"job-types", "job-types", "GET /job-types", jobTypes},
		{"processes", "processes", "GET /processes", processes},
		{"whoami", "whoami", "GET /whoami", identity},
		{"status-welcome-mail", "status welcome-mail", "GET /jobs/status?job=welcome-mail", welcomeStatus},
		{"trigger-welcome-mail", `trigger welcome-mail --data {"to":"ada@codex.example"}`, `POST /jobs/trigger/welcome-mail {"to":"ada@codex.example"}`,
			`{"jobId":"1795495826751:welcome-mail:mq4z2etl","coalesced":false}`},
		{"health", "health", "GET /health", healthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newSystem(t)
			table := run(t, f.URL, strings.Fields(test.args)...)
			if table.status != 0 || table.err != "" {
				t.Errorf("the exit status is %d, on stderr %q", table.status, table.err)
			}
			golden(t, test.name+".txt", table.out)
			if strings.ContainsRune(table.out, '\x1b') {
				t.Error("what a server has written could control the terminal")
			}

			asJSON := run(t, f.URL, append(strings.Fields(test.args), "--output", "json")...)
			if asJSON.status != 0 || asJSON.err != "" {
				t.Errorf("as JSON, the exit status is %d, on stderr %q", asJSON.status, asJSON.err)
			}
			golden(t, test.name+".json", asJSON.out)
			var got, want any
			if err := json.Unmarshal([]byte(asJSON.out), &got); err != nil {
				t.Fatalf("no JSON: %v", err)
			}
			if test.data != "" {
				if err := json.Unmarshal([]byte(test.data), &want); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("as JSON it is\n%s\nwhile the API's data is\n%s", asJSON.out, test.data)
				}
			}
			if seen := f.seen(); !slices.Contains(seen, test.request) || seen[0] != test.request {
				t.Errorf("the requests are %q, want first %q", seen, test.request)
			}
		})
	}
}

// The payloads that the flags of trigger send.
func TestTriggerPayload(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"--full"}, `{"syncType":"full"}`},
		{[]string{"--batch-size", "7"}, `{"batchSize":7}`},
		{[]string{"--data", ` {"to": "a@example.com", "n": [1, 2]} `}, `{"to":"a@example.com","n":[1,2]}`},
		{[]string{"--data", "{}"}, `{}`},
		{[]string{"--delay", "1m30s"}, `{"delay":90000}`},
		{[]string{"--delay", "0s"}, `{"delay":0}`},
		{[]string{"--full", "--run-at", "2026-11-24T05:50:00.25+01:00"}, `{"runAt":"2026-11-24T04:50:00.25Z","syncType":"full"}`},
		{[]string{"--data", ` { } `, "--delay", "1ns"}, `{"delay":1}`},
		{[]string{"--data", `{"to": "a"}`, "--run-at", "2026-11-24T04:50:00Z"}, `{"runAt":"2026-11-24T04:50:00Z","to":"a"}`},
	} {
		f := newSystem(t)
		if p := run(t, f.URL, append([]string{"trigger", "user-sync"}, test.args...)...); p.status != 0 {
			t.Errorf("%q: %+v", test.args, p)
		}
		if seen, want := f.seen(), strings.TrimSpace("POST /jobs/trigger/user-sync "+test.want); !slices.Equal(seen, []string{want}) {
			t.Errorf("%q: sent %q, want %q", test.args, seen, want)
		}
	}
}

// An unhealthy answer is printed all the same.
func TestUnhealthy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"incomplete", incomplete, 200, "codexctl: not healthy: a live worker is missing\n"},
		{"degraded", degraded, 503, "codexctl: not healthy: the status is DEGRADED, Redis is missing\n"},
	} {
		f := newFake(t)
		f.on("GET /health", test.status, test.body)
		p := run(t, f.URL, "health")
		golden(t, "health-"+test.name+".txt", p.out)
		if p.status != 1 || p.err != test.want {
			t.Errorf("%s: the exit status is %d, on stderr %q", test.name, p.status, p.err)
		}
	}
}

// A server of an older release does not list its job types, and tells their sum only.
func TestStatusOfAnOlderServer(t *testing.T) {
	t.Parallel()
	f := newSystem(t)
	f.on("GET /job-types", 404, `{"success":false,"message":"there is nothing at \"/job-types\""}`)
	p := run(t, f.URL, "status")
	if p.status != 0 || p.err != "" || strings.Contains(p.out, "\nproject-sync") || !strings.Contains(p.out, "\nall ") {
		t.Errorf("got %+v", p)
	}
}
