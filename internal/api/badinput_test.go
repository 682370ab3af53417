package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// Every request here is refused, says what was wrong with it, and changes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// The data that could be damaged: waiting and ended runs, one job type that is paused and one that is not.
	b.trigger(t, "user-sync", "")
	b.ended(t, "project-sync", 48*time.Hour)
	b.post(t, "/jobs/pause", `{"job": "issue-sync"}`)

	const (
		trigger = "/jobs/trigger/user-sync"
		pause   = "/jobs/pause"
		resume  = "/jobs/resume"
		cleanup = "/jobs/cleanup"
		retry   = "/jobs/retry-failed"
		cancel  = "/jobs/cancel-waiting"
		names   = `"user-sync" or "project-sync" or "issue-sync"`
	)
	type badInput struct {
		name, method, path, contentType, body string
		status                                int
		message                               []string // parts of it
		encoding                              string   // the Content-Encoding
	}
	var tests []badInput
	add := func(name, path, body string, status int, message ...string) {
		tests = append(tests, badInput{name, http.MethodPost, path, "application/json", body, status, message, ""})
	}

	for _, path := range []string{trigger, pause, resume, cleanup, retry, cancel} {
		bad := func(name, body string, message ...string) {
			add(name+" to "+path, path, body, http.StatusBadRequest, message...)
		}
		bad("no JSON", `syncType=full`, "the body was not valid JSON", "it must be a JSON object")
		bad("a comment", "{} // or not", "the body was more than one JSON value")
		bad("single quotes", `{'job': 'user-sync'}`, "the body was not valid JSON")
		bad("truncated JSON", `{"job": "user-`, "the body was not valid JSON: it ends too early")
		bad("only the beginning of JSON", `{`, "the body was not valid JSON: it ends too early")
		bad("trailing comma", `{"job": "user-sync",}`, "the body was not valid JSON")
		bad("an array", `[{"job": "user-sync"}]`, "the body was a JSON array; it must be a JSON object")
		bad("an empty array", `[]`, "the body was a JSON array; it must be a JSON object")
		bad("a number", `24`, "the body was a JSON number; it must be a JSON object")
		bad("a negative number", `-1`, "the body was a JSON number; it must be a JSON object")
		bad("null", `null`, "the body was null; it must be a JSON object")
		bad("a string", `"full"`, "the body was a JSON string; it must be a JSON object")
		bad("a boolean", `true`, "the body was a JSON boolean; it must be a JSON object")
		bad("two objects", `{} {}`, "the body was more than one JSON value; it must be one JSON object")
		bad("an object and a bracket", `{}]`, "the body was more than one JSON value")
		bad("deep nesting", strings.Repeat("[", 20_000), "the body was not valid JSON")
		bad("a field twice", `{"job": "user-sync", "job": "issue-sync", "syncType": "full", "syncType": "full"}`, "was given more than once; it must be given once")
		bad("no UTF-8", "{\"job\": \"\xff\"}", "the body was not valid UTF-8")
		bad("an unknown field", `{"priority": 1}`, `the field "priority" was not known; it must be "`)
		bad("a field in other letters", `{"Job": "user-sync", "SyncType": "full", "GracePeriodHours": 1}`, "was not known")
		bad("an empty field name", `{"": 1}`, `the field "" was not known`)
		bad("a long field name", `{"`+strings.Repeat("x", 60_000)+`": 1}`, "was not known")
		add("70 kB to "+path, path, `{"job": "`+strings.Repeat("x", 70_000)+`"}`, http.StatusRequestEntityTooLarge,
			"the body was too large; it must have at most 65536 bytes")
		add("70 kB of white space to "+path, path, strings.Repeat(" ", 70_000), http.StatusRequestEntityTooLarge, "at most 65536 bytes")
		for _, encoding := range []string{"gzip", "br", "deflate, gzip", "x"} {
			tests = append(tests, badInput{
				"a compressed body to " + path, http.MethodPost, path, "application/json", "{}", http.StatusUnsupportedMediaType,
				[]string{`Content-Encoding was "` + encoding + `"; it must be left out`}, encoding,
			})
		}
		for _, contentType := range []string{"", "text/plain", "application/json; charset=utf-16", "application/json, text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "json", ";"} {
			tests = append(tests, badInput{
				fmt.Sprintf("content type %q to %s", contentType, path), http.MethodPost, path, contentType, "{}",
				http.StatusUnsupportedMediaType, []string{fmt.Sprintf(`Content-Type was %q; it must be "application/json"`, contentType)}, "",
			})
		}
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "PURGE"} {
			tests = append(tests, badInput{
				method + " " + path, method, path, "", "",
				http.StatusMethodNotAllowed, []string{"the method was " + method + "; it must be POST"}, "",
			})
		}
	}

	field := func(path, field, allowed string, values ...string) {
		for _, value := range values {
			add(fmt.Sprintf("%s %s to %s", field, value, path), path, fmt.Sprintf(`{%q: %s}`, field, value), http.StatusBadRequest,
				fmt.Sprintf("%s was %s; it must be %s", field, value, allowed))
		}
	}
	field(trigger, "syncType", `"incremental" or "full"`,
		`"Full"`, `"both"`, `" full"`, `1`, `true`, `null`, `[]`, `["full"]`, `{}`, `"full!"`)
	field(trigger, "batchSize", `a whole number from 1 to 10000`,
		`0`, `-1`, `10001`, `1.5`, `1e400`, `-1e400`, `9223372036854775808`, `"100"`, `true`, `null`, `[1]`, `{}`)
	field(trigger, "runAt", `an instant such as "2026-11-24T04:50:00.000Z", at most 365 days ahead`,
		`"tomorrow"`, `""`, `"2026-11-24"`, `"2026-11-24T04:50:00"`, `"24 Nov 2026"`, `1795495800000`, `true`, `null`, `[]`, `{}`)
	field(trigger, "delay", `a whole number of milliseconds from 0 to 31536000000`,
		`-1`, `0.5`, `31536000001`, `1e400`, `9223372036854775808`, `"10m"`, `"600000"`, `true`, `null`, `[1]`, `{}`)
	for _, path := range []string{pause, resume, cleanup, retry, cancel} {
		field(path, "job", "the name of a job type, or all", `1`, `true`, `null`, `["user-sync"]`, `{}`)
		for _, job := range []string{"", "users", "User-Sync", "ALL", " user-sync", "user-sync\\u0000", "*"} {
			add(fmt.Sprintf("job %q to %s", job, path), path, fmt.Sprintf(`{"job": "%s"}`, job), http.StatusBadRequest,
				`job was "`+job+`"; it must be `+names+` or "all"`)
		}
	}
	field(cleanup, "gracePeriodHours", "a number from 0 to 8760",
		`-1`, `-0.001`, `8761`, `8760.001`, `1e400`, `-1e400`, `"24"`, `true`, `null`, `[24]`, `{}`)

	long := strings.Repeat("<é", 10_000)
	add("a long job", cleanup, `{"job": "`+long+`"}`, http.StatusBadRequest, `job was "<é<é`, `…; it must be `+names)
	add("a long unknown job", "/jobs/trigger/"+strings.Repeat("x", 5000), "", http.StatusNotFound, `the job was "xxx`, `…; it must be `+names)
	add("a long path", "/"+strings.Repeat("x", 5000), "", http.StatusNotFound, `there is nothing at "/xxx`)
	for _, path := range []string{"/jobs/trigger/users", "/jobs/trigger/User-Sync", "/jobs/trigger/all", "/jobs/trigger/user-sync%20", "/jobs/trigger/%00", "/jobs/trigger/.."} {
		name := strings.NewReplacer("%20", " ", "%00", `\u0000`).Replace(strings.TrimPrefix(path, "/jobs/trigger/"))
		add("unknown job "+path, path, "", http.StatusNotFound, `the job was "`+name+`"; it must be `+names)
	}
	for _, query := range []string{"users", "", "All", "user-sync,project-sync"} {
		tests = append(tests, badInput{
			"unknown job in the query: " + query, http.MethodGet, "/jobs/status?job=" + query, "", "",
			http.StatusBadRequest, []string{`job was "` + query + `"; it must be ` + names + ` or "all"`}, "",
		})
	}
	for _, path := range []string{"/jobs/", "/jobs/stop", "/jobs/1000:user-sync/stop", "/schedules/user-sync", "/jobs/trigger", "/jobs/trigger/user-sync/now", "/api", "/favicon.ico", "/jobs/status/user-sync"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			tests = append(tests, badInput{
				method + " " + path, method, path, "", "", http.StatusNotFound, []string{`there is nothing at "` + path + `"`}, "",
			})
		}
	}
	for _, path := range []string{"/", "/docs", "/health", "/jobs", "/jobs/status", "/livez", "/metrics", "/openapi.json", "/processes", "/readyz", "/schedules"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			tests = append(tests, badInput{
				method + " " + path, method, path, "", "", http.StatusMethodNotAllowed, []string{"the method was " + method + "; it must be GET"}, "",
			})
		}
	}

	// Jobs that do not exist, or are in the wrong state.
	waiting := b.trigger(t, "issue-sync", "").Data.JobID
	for _, id := range []string{"1000:user-sync", "1000:user-sync:abcdefgh", "1000:no-such-job"} {
		for method, path := range map[string]string{http.MethodGet: "/jobs/" + id, http.MethodDelete: "/jobs/" + id, http.MethodPost: "/jobs/" + id + "/retry"} {
			tests = append(tests, badInput{method + " " + path, method, path, "", "", http.StatusNotFound, []string{`there is no job "` + id + `"; see GET /jobs`}, ""})
		}
	}
	tests = append(tests,
		badInput{"retrying what waits", http.MethodPost, "/jobs/" + waiting + "/retry", "", "", http.StatusConflict, []string{"has not failed"}, ""},
		badInput{"a body for a retry", http.MethodPost, "/jobs/" + waiting + "/retry", "application/json", `{"x":1}`, http.StatusBadRequest, []string{`the field "x" was not known`}, ""},
		badInput{"PUT of a job", http.MethodPut, "/jobs/" + waiting, "", "", http.StatusMethodNotAllowed, []string{"the method was PUT; it must be DELETE or GET or HEAD"}, ""},
		badInput{"GET of a retry", http.MethodGet, "/jobs/" + waiting + "/retry", "", "", http.StatusMethodNotAllowed, []string{"it must be POST"}, ""},
	)
	for query, message := range map[string]string{
		"job=users":                 `job was "users"; it must be ` + names + ` or "all"`,
		"job=":                      `job was ""; it must be ` + names + ` or "all"`,
		"state=pending":             `state was "pending"; it must be "active" or "waiting" or "delayed" or "failed" or "cancelled" or "completed"`,
		"page=0":                    `page was "0"; it must be a whole number from 1 to 1000000`,
		"page=x":                    `page was "x"`,
		"pageSize=101":              `pageSize was "101"; it must be a whole number from 1 to 100`,
		"pageSize=1.5":              `pageSize was "1.5"`,
		"pageSize=":                 `pageSize was ""`,
		"page=99999999999999999999": `page was "99999999999999999999"`,
	} {
		tests = append(tests, badInput{"GET /jobs?" + query, http.MethodGet, "/jobs?" + query, "", "", http.StatusBadRequest, []string{strings.TrimPrefix(message, "the job")}, ""})
	}

	// What is not understood in a query or in headers.
	strict := func(method, path, query, body string, message ...string) {
		tests = append(tests, badInput{method + " " + path + query + body, method, path + query, "application/json", body, http.StatusBadRequest, message, ""})
	}
	for _, r := range []struct{ method, path, allowed string }{
		{http.MethodGet, "/jobs", `it must be "job" or "state" or "page" or "pageSize"`}, {http.MethodGet, "/jobs/status", `it must be "job"`},
		{http.MethodGet, "/jobs/" + waiting, "there are no parameters here"}, {http.MethodDelete, "/jobs/" + waiting, "there are no parameters here"},
		{http.MethodGet, "/schedules", "there are no parameters here"}, {http.MethodGet, "/job-types", "there are no parameters here"},
		{http.MethodGet, "/processes", "there are no parameters here"}, {http.MethodPost, "/jobs/" + waiting + "/retry", "there are no parameters here"},
		{http.MethodPost, trigger, "there are no parameters here"}, {http.MethodPost, pause, "there are no parameters here"},
		{http.MethodPost, resume, "there are no parameters here"}, {http.MethodPost, cleanup, "there are no parameters here"},
		{http.MethodPost, retry, "there are no parameters here"}, {http.MethodPost, cancel, "there are no parameters here"},
	} {
		strict(r.method, r.path, "?stat=failed", "", `the parameter "stat" was not known; it must be `, r.allowed)
		strict(r.method, r.path, "?=x", "", `the parameter "" was not known`)
		strict(r.method, r.path, "?state=%zz", "", `the query had "%zz" in it; it must be a percent sign and two hexadecimal digits`)
		strict(r.method, r.path, "?job=user-sync;state=failed", "", `its parameters must be separated by &`)
		if r.method == http.MethodGet {
			strict(r.method, r.path, "", `{"job": "user-sync"}`, "GET had a body; it must have none")
		}
	}
	strict(http.MethodGet, "/jobs", "?job=user-sync&job=issue-sync", "", `the parameter "job" was given 2 times; it must be given once`)
	strict(http.MethodGet, "/jobs/status", "?job=all&job=all", "", `the parameter "job" was given 2 times`)
	strict(http.MethodDelete, "/jobs/"+waiting, "", `{"force": true}`, `the field "force" was not known`)

	before := b.dump(t)
	if len(before) < 8 {
		t.Fatalf("there is nothing to be damaged: %v", before)
	}
	for _, test := range tests {
		name := test.name
		if len(name) > 100 {
			name = name[:100]
		}
		t.Run(name, func(t *testing.T) {
			a := b.request(t, test.method, test.path, test.body, "Content-Type", test.contentType, "Content-Encoding", test.encoding)
			if a.status != test.status {
				t.Errorf("the status is %d, want %d", a.status, test.status)
			}
			if a.status == http.StatusMethodNotAllowed && a.header.Get("Allow") == "" {
				t.Error("the answer does not say which methods are allowed")
			}
			if test.method != http.MethodHead {
				refused(t, a, test.message...)
			}
			if changed := changes(before, b.dump(t)); changed != nil {
				t.Errorf("in Redis, %v", changed)
			}
		})
	}
}

// refused checks the form of an error's answer, and that its message has the given parts.
func refused(t *testing.T, a answer, parts ...string) {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("the Content-Type is %q", got)
	}
	body := a.json(t)
	message, _ := body["message"].(string)
	if success, ok := body["success"].(bool); !ok || success || message == "" || len(body) != 2 {
		t.Errorf("the answer is %s", a.text)
	}
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("the message is %q, which does not say %q", message, part)
		}
	}
	if len(message) > 1000 {
		t.Errorf("the message has %d characters", len(message))
	}
}

// The message names the wrong field among several.
func TestBadInputNamesTheField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct{ path, body, message string }{
		{"/jobs/trigger/issue-sync", `{"syncType": "full", "batchSize": 0}`, "batchSize was 0; it must be a whole number from 1 to 10000"},
		{"/jobs/trigger/issue-sync", `{"batchSize": 5, "syncType": "none"}`, `syncType was "none"; it must be "incremental" or "full"`},
		{"/jobs/trigger/issue-sync", `{"batchSize": 5, "job": "issue-sync"}`, `the field "job" was not known; it must be "syncType" ("incremental" or "full") or ` +
			`"batchSize" (a whole number from 1 to 10000) or "runAt" (an instant such as "2026-11-24T04:50:00.000Z", at most 365 days ahead) or ` +
			`"delay" (a whole number of milliseconds from 0 to 31536000000)`},
		{"/jobs/cleanup", `{"job": "issue-sync", "gracePeriodHours": -5}`, "gracePeriodHours was -5; it must be a number from 0 to 8760"},
		{"/jobs/cleanup", `{"job": "x", "gracePeriodHours": 5}`, `job was "x"; it must be "user-sync" or "project-sync" or "issue-sync" or "all"`},
		{"/jobs/pause", `{"gracePeriodHours": 5}`, `the field "gracePeriodHours" was not known; it must be "job" (the name of a job type, or all)`},
	} {
		a := b.post(t, test.path, test.body)
		if message, _ := a.json(t)["message"].(string); a.status != http.StatusBadRequest || message != test.message {
			t.Errorf("%s %s: %d %q, want %q", test.path, test.body, a.status, message, test.message)
		}
	}
	if keys := b.dump(t); len(keys) != 0 {
		t.Errorf("an empty Redis has %v now", keys)
	}
}

// Load balancers and links add parameters of their own to pages and probes, which ignore them.
func TestPagesAndProbesIgnoreQueries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/docs", "/openapi.json", "/health", "/livez", "/readyz", "/metrics", "/dashboard"} {
		for _, query := range []string{"?utm_source=mail", "?x=1&x=2"} {
			if a := b.get(t, path+query); a.status != http.StatusOK {
				t.Errorf("%s%s: %d %s", path, query, a.status, a.text)
			}
		}
	}
}

// HEAD on every GET route: the header alone, as Express answers.
func TestHead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/", "/docs", "/health", "/jobs", "/jobs/status", "/livez", "/metrics", "/openapi.json", "/processes", "/readyz", "/schedules"} {
		if a := b.request(t, http.MethodHead, path, ""); a.status != http.StatusOK || a.text != "" {
			t.Errorf("HEAD %s: %d %q", path, a.status, a.text)
		}
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/livez", "/readyz"} {
		if a := b.get(t, path); a.status != http.StatusOK || a.text != "ok\n" {
			t.Errorf("%s: %d %q", path, a.status, a.text)
		}
	}
}

// The health names the missing parts of an incomplete system, and is still no error.
func TestHealthOfAnIncompleteSystem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	check := func(initialized bool, workers, schedulers int, missing ...string) bool {
		var h struct {
			Status string
			Jobs   struct {
				Initialized         bool
				Workers, Schedulers int
				Missing             []string
			}
		}
		b.ok(t, b.get(t, "/health"), &h)
		return h.Status == "OK" && h.Jobs.Initialized == initialized && h.Jobs.Workers == workers &&
			h.Jobs.Schedulers == schedulers && slices.Equal(h.Jobs.Missing, missing)
	}
	if !check(false, 0, 0, "a live worker", "a live schedule") {
		t.Errorf("of an empty system: %s", b.get(t, "/health").text)
	}
	b.startScheduler(t)
	testbed.Eventually(t, "a worker alone to be missing", func() bool { return check(false, 0, 1, "a live worker") })
	_, handlers := b.handOver()
	stop := b.startWorkerOf(t, handlers)
	testbed.Eventually(t, "nothing to be missing", func() bool { return check(true, 1, 1) })
	stop()
	if !check(false, 0, 1, "a live worker") {
		t.Errorf("after the only worker has left: %s", b.get(t, "/health").text)
	}

	other := setup(t)
	other.startWorker(t)
	b = other
	testbed.Eventually(t, "a schedule alone to be missing", func() bool { return check(false, 1, 0, "a live schedule") })
}

// While a run waits for what its own work needs, this system is well.
func TestHealthWhileWorkWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := tasks.TriggerID("user-sync", time.Now())
	wait := jobs.Wait{For: "working on users: the directory is away", Since: time.Now(), Upstream: true}
	if err := b.jobs.SetWait(t.Context(), id, wait); err != nil {
		t.Fatal(err)
	}
	answer := b.get(t, "/health")
	var h client.Health
	if err := json.Unmarshal([]byte(answer.text), &h); err != nil {
		t.Fatal(err)
	}
	if w := h.Jobs.Waiting; answer.status != http.StatusOK || len(w) != 1 || w[0].For != wait.For || !w[0].Upstream {
		t.Errorf("%d: %s", answer.status, answer.text)
	}
}

// A MongoDB that hangs, but answers pings, shows in what the active runs wait for.
func TestHealthWhileARunWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := tasks.TriggerID("user-sync", time.Now())
	if err := b.jobs.SetWait(t.Context(), id, jobs.Wait{For: "updating users", Since: time.Now(), Slow: true}); err != nil {
		t.Fatal(err)
	}
	answer := b.get(t, "/health")
	var h client.Health
	if err := json.Unmarshal([]byte(answer.text), &h); err != nil {
		t.Fatal(err)
	}
	if answer.status != http.StatusServiceUnavailable || h.Status != client.StatusDegraded || h.Database.Status != client.StatusConnected {
		t.Errorf("%d: %s", answer.status, answer.text)
	}
	if w := h.Jobs.Waiting; len(w) != 1 || w[0].ID != id.String() || w[0].For != "updating users" || w[0].Since.IsZero() {
		t.Errorf("waiting: %+v", w)
	}
}
