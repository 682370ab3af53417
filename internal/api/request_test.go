package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/procs"
)

// Every answer, errors included, has the headers that restrict browsers.
func TestHeaders(t *testing.T) {
	t.Parallel()
	open := setup(t)
	locked := setupLocked(t)
	open.trigger(t, "user-sync", "")
	for _, test := range []struct {
		name   string
		b      *testBundle
		method string
		path   string
		status int
		page   bool
	}{
		{"an answer", open, http.MethodGet, "/jobs/status", 200, false},
		{"a trigger", open, http.MethodPost, "/jobs/trigger/user-sync", 200, false},
		{"the health", open, http.MethodGet, "/health", 200, false},
		{"a probe", open, http.MethodGet, "/livez", 200, false},
		{"nothing there", open, http.MethodGet, "/nothing", 404, false},
		{"the wrong method", open, http.MethodPut, "/jobs/pause", 405, false},
		{"an unusual method", open, "PURGE", "/jobs/pause", 405, false},
		{"an odd path", open, http.MethodGet, "//jobs/status", 404, false},
		{"no key", locked.testBundle, http.MethodGet, "/jobs/status", 401, false},
		{"a read key", locked.as(readKey), http.MethodPost, "/jobs/pause", 403, false},
		{"the dashboard's API", open, http.MethodGet, "/dashboard/api/queues", 200, false},
		{"the dashboard's API, read-only", open, http.MethodPost, "/dashboard/api/queues/user-sync:pause", 405, false},
		{"what is not the dashboard", open, http.MethodGet, "/dashboards", 404, false},
		{"the dashboard", open, http.MethodGet, "/dashboard", 200, true},
		{"a page of the dashboard", open, http.MethodGet, "/dashboard/queues/user-sync", 200, true},
		{"a file of the dashboard", open, http.MethodGet, "/dashboard/favicon.ico", 200, true},
	} {
		a := test.b.request(t, test.method, test.path, "")
		if a.status != test.status {
			t.Errorf("%s: %d, want %d", test.name, a.status, test.status)
		}
		want := map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
			"Strict-Transport-Security": "", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
		}
		if test.page {
			delete(want, "Content-Security-Policy")
			want["Cache-Control"] = ""
		}
		for name, value := range want {
			if got := a.header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", test.name, name, got, value)
			}
		}
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(a.header.Get("Content-Security-Policy"), directive) {
				t.Errorf("%s: the Content-Security-Policy has no %s", test.name, directive)
			}
		}
		if !regexp.MustCompile(`^[A-Z2-7]{26}$`).MatchString(a.header.Get("X-Request-Id")) {
			t.Errorf("%s: the request's ID is %q", test.name, a.header.Get("X-Request-Id"))
		}
	}
}

// The dashboard's page can run its own scripts and no others. devstack/browser checks that this is enough for it.
func TestDashboardPolicy(t *testing.T) {
	t.Parallel()
	for _, readOnly := range []bool{true, false} {
		a := setup(t, func(o *api.Options) { o.DashboardReadOnly = readOnly }).get(t, "/dashboard/")
		policy := a.header.Get("Content-Security-Policy")
		_, scripts, _ := strings.Cut(policy, "script-src ")
		scripts, _, _ = strings.Cut(scripts, ";")
		inline := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllStringSubmatch(a.text, -1)
		if len(inline) != 2 || len(strings.Fields(scripts)) != 3 || strings.Contains(scripts, "unsafe") {
			t.Errorf("the page has %d scripts in it, and may run %s", len(inline), scripts)
		}
		for _, script := range inline {
			hash := sha256.Sum256([]byte(script[1]))
			if !strings.Contains(scripts, "'sha256-"+base64.StdEncoding.EncodeToString(hash[:])+"'") {
				t.Errorf("the page may not run %.60s", script[1])
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="https?://([^/"]*)`).FindAllStringSubmatch(a.text, -1) {
			if !strings.Contains(policy, "https://"+m[1]) {
				t.Errorf("the page must be allowed to load %s", m[1])
			}
		}
	}
}

// A request keeps the ID of the client if the ID is safe to log, and each line of the log about the request has it.
func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for id, sane := range map[string]bool{
		"0b54a4b2-9f5c-4a5e-8d64-3d3f0a1c2b3d": true, "trace:1.2_3": true, strings.Repeat("x", 64): true, "": false, strings.Repeat("x", 65): false,
		"a b": false, "a\tlevel=ERROR": false, `"`: false, "é": false, "<script>": false, "a,b": false,
	} {
		for _, path := range []string{"/jobs/trigger/user-sync", "/jobs/trigger/nobody"} {
			a := b.request(t, http.MethodPost, path, "", "X-Request-Id", id)
			got := a.header.Get("X-Request-Id")
			if (got == id) != sane || got == "" {
				t.Errorf("the ID %q of a request has become %q", id, got)
			}
			lines := len(b.log.Find(procs.Match{Attrs: procs.Attrs{"requestId": got}}))
			if want := map[int]int{http.StatusOK: 2, http.StatusNotFound: 1}[a.status]; !sane && lines != want || lines < want {
				t.Errorf("the log has %d lines of %q, want %d", lines, got, want)
			}
		}
	}
	b.proxy.Down()
	a := b.request(t, http.MethodPost, "/jobs/pause", "", "X-Request-Id", "away")
	want := procs.Match{Msg: "Redis did not serve a request", Attrs: procs.Attrs{"level": "WARN", "requestId": "away", "path": "/jobs/pause"}}
	if a.status != http.StatusServiceUnavailable || len(b.log.Find(want)) == 0 {
		t.Errorf("%d, and the log has no %s", a.status, want)
	}
}

// A header that is too large is refused before it is parsed.
func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if a := b.request(t, http.MethodGet, "/jobs/status", "", "X-Large", strings.Repeat("x", 10<<10)); a.status != http.StatusOK {
		t.Errorf("with 10 KiB: %d %s", a.status, a.text)
	}
	if a := b.request(t, http.MethodGet, "/jobs/status", "", "X-Large", strings.Repeat("x", 30<<10)); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("with 30 KiB: %d %s", a.status, a.text)
	}
}

// A handler that panics tells the log why, and the client nothing.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *api.Options) { o.Jobs.Redis().AddHook(panickyRedis{}) })
	a := b.request(t, http.MethodPost, "/jobs/trigger/user-sync", "", "X-Request-Id", "panicked")
	if a.status != http.StatusInternalServerError {
		t.Errorf("got %d", a.status)
	}
	refused(t, a, "internal error; the log says more")
	if len(b.log.Find(procs.Match{Msg: "A request handler panicked", Attrs: procs.Attrs{"requestId": "panicked"}, Text: "on purpose"})) == 0 {
		t.Errorf("the log does not say why")
	}
	for _, part := range []string{"on purpose", "goroutine", ".go:"} {
		if strings.Contains(a.text, part) {
			t.Errorf("the answer has %q: %s", part, a.text)
		}
	}
}

// panickyRedis is a hook that makes every command panic.
type panickyRedis struct{ slowRedis }

func (panickyRedis) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(context.Context, redis.Cmder) error { panic("on purpose") }
}
