package api_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/procs"
)

const (
	readKey  = "a-key-that-reads-0001"
	writeKey = "a-key-that-writes-0002"
)

// route is one route of the API, with the data to use and to misuse it.
type route struct {
	method, path string // as the router has it; GET stands for HEAD, too
	// url is one that it serves, if that is not the path, and wrong are some that it refuses. {waiting} stands for the ID of
	// a waiting run, {failed} for the ID of a failed one.
	url   string
	wrong []string
	// open is true for a route that needs no key.
	open bool
	// body is a valid body, and fields has the JSON type of each field of a body; nil when the route ignores bodies.
	body   string
	fields map[string]string
	// conflict is true for a route that answers 409 here, and changes nothing.
	conflict bool
}

// routes are all routes: TestEveryRouteIsTested fails when one is missing, and all tests of this file try each of them.
var routes = []route{
	{method: http.MethodGet, path: "/livez", open: true},
	{method: http.MethodGet, path: "/readyz", open: true},
	{method: http.MethodGet, path: "/health", open: true},
	{method: http.MethodGet, path: "/jobs/status", wrong: []string{"/jobs/status?job=users", "/jobs/status?job="}},
	{
		method: http.MethodPost, path: "/jobs/trigger/:job", url: "/jobs/trigger/user-sync", wrong: []string{"/jobs/trigger/users", "/jobs/trigger/7"},
		body: `{"syncType": "full"}`, fields: map[string]string{"syncType": "string", "batchSize": "number"},
	},
	{method: http.MethodPost, path: "/jobs/pause", body: `{"job": "project-sync"}`, fields: map[string]string{"job": "string"}},
	{method: http.MethodPost, path: "/jobs/resume", body: `{"job": "issue-sync"}`, fields: map[string]string{"job": "string"}},
	{method: http.MethodPost, path: "/notify/test", body: `{}`, fields: map[string]string{}, conflict: true},
	{method: http.MethodPost, path: "/jobs/retry-failed", body: `{"job": "project-sync"}`, fields: map[string]string{"job": "string"}},
	{method: http.MethodPost, path: "/jobs/cancel-waiting", body: `{"job": "all"}`, fields: map[string]string{"job": "string"}},
	{
		method: http.MethodPost, path: "/jobs/cleanup", body: `{"job": "project-sync"}`,
		fields: map[string]string{"job": "string", "gracePeriodHours": "number"},
	},
	{
		method: http.MethodGet, path: "/jobs",
		wrong: []string{"/jobs?job=users", "/jobs?job=7", "/jobs?state=asleep", "/jobs?page=0", "/jobs?page=x", "/jobs?pageSize=101"},
	},
	{method: http.MethodGet, path: "/jobs/:id", url: "/jobs/{waiting}", wrong: []string{"/jobs/nobody", "/jobs/7", "/jobs/{waiting}x"}},
	{method: http.MethodDelete, path: "/jobs/:id", url: "/jobs/{waiting}", wrong: []string{"/jobs/nobody", "/jobs/7", "/jobs/{failed}"}},
	{
		method: http.MethodPost, path: "/jobs/:id/retry", url: "/jobs/{failed}/retry", wrong: []string{"/jobs/nobody/retry", "/jobs/{waiting}/retry"},
		fields: map[string]string{},
	},
	{
		method: http.MethodGet, path: "/history",
		wrong: []string{
			"/history?job=users", "/history?state=active", "/history?kind=runs", "/history?from=today", "/history?to=1", "/history?text=", "/history?text=%00",
			"/history?limit=0", "/history?limit=101", "/history?cursor=x", "/history?page=1",
		},
	},
	{method: http.MethodGet, path: "/history/:entry", url: "/history/1795495826000:user-sync", wrong: []string{"/history/nobody?job=7", "/history/7", "/history/%ff"}},
	{method: http.MethodGet, path: "/schedules"},
	{method: http.MethodGet, path: "/job-types"},
	{method: http.MethodGet, path: "/processes"},
	{method: http.MethodGet, path: "/whoami"},
	{method: http.MethodGet, path: "/"},
	{method: http.MethodGet, path: "/console.js"},
	{method: http.MethodGet, path: "/console.css"},
	{method: http.MethodGet, path: "/docs"},
	{method: http.MethodGet, path: "/openapi.json"},
	{method: http.MethodGet, path: "/metrics"},
	// Add new routes here.

	// The dashboard's are one route each to the router, whatever the method; asynqmon has the rest.
	{method: http.MethodGet, path: "/dashboard"},
	{method: http.MethodGet, path: "/dashboard/*page", url: "/dashboard/api/queues"},
	{method: http.MethodPost, path: "/dashboard/*page", url: "/dashboard/api/queues/user-sync:pause"},
	{method: http.MethodPost, path: "/dashboard/*page", url: "/dashboard/api/queues/issue-sync:resume"},
	{method: http.MethodPost, path: "/dashboard/*page", url: "/dashboard/api/queues/user-sync/pending_tasks/{waiting}:archive"},
	{
		method: http.MethodPost, path: "/dashboard/*page", url: "/dashboard/api/queues/user-sync/pending_tasks:batch_delete",
		body: `{"task_ids": ["{waiting}"]}`, fields: map[string]string{"task_ids": "array"},
	},
	{method: http.MethodDelete, path: "/dashboard/*page", url: "/dashboard/api/queues/project-sync/archived_tasks/{failed}"},
	{method: http.MethodDelete, path: "/dashboard/*page", url: "/dashboard/api/queues/project-sync/archived_tasks:delete_all"},
}

func (r route) String() string {
	if r.url != "" {
		return r.method + " " + r.url
	}
	return r.method + " " + r.path
}

// methods returns the methods to try the route with.
func (r route) methods() []string {
	if r.method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{r.method}
}

func (r route) dashboard() bool { return strings.HasPrefix(r.path, api.DashboardPath) }
func (r route) writes() bool    { return r.method != http.MethodGet }

func TestEveryRouteIsTested(t *testing.T) {
	t.Parallel()
	listed := make(map[string]bool)
	for _, r := range routes {
		for _, method := range r.methods() {
			if r.dashboard() {
				method = "any"
			}
			listed[method+" "+r.path] = true
		}
	}
	inRouter := make(map[string]bool)
	for _, name := range setup(t).server.Routes() {
		if method, path, _ := strings.Cut(name, " "); strings.HasPrefix(path, api.DashboardPath) {
			name = "any " + path
		} else if method == http.MethodHead {
			continue // some GET may be without
		}
		inRouter[name] = true
		if !listed[name] {
			t.Errorf("%s is in the router and not in the test's list", name)
		}
	}
	for name := range listed {
		if !inRouter[name] && !strings.HasPrefix(name, http.MethodHead) {
			t.Errorf("%s is in the test's list and not in the router", name)
		}
	}
}

// lockedBundle is an API with keys, and with data in Redis that a request could change.
type lockedBundle struct {
	*testBundle
	replace *strings.Replacer // what stands for IDs
	ended   int               // how many runs of the project sync have ended
}

func setupLocked(t *testing.T, adjust ...func(*api.Options)) *lockedBundle {
	t.Helper()
	keys, err := access.ParseKeys("viewer:read:" + readKey + ",ops:write:" + writeKey)
	if err != nil {
		t.Fatal(err)
	}
	ended, store, _ := withHistory(t)
	put(t, store, jobs.Entry{ID: "1795495826000:user-sync", Kind: jobs.EntryRun, Job: "user-sync", At: historyTime, State: jobs.StateCompleted})
	b := &lockedBundle{testBundle: setup(t, append(adjust, ended, func(o *api.Options) { o.Keys, o.DashboardReadOnly = keys, false })...)}
	b.server.AllowWrongKeys(1_000_000) // which these tests send
	ops := b.as(writeKey)
	waiting := ops.trigger(t, "user-sync", "").Data.JobID
	b.testBundle.ended(t, "project-sync", 48*time.Hour, 49*time.Hour)
	b.ended = 4
	failed, err := b.inspector.ListArchivedTasks("project-sync")
	if err != nil || len(failed) != 2 {
		t.Fatal(failed, err)
	}
	if a := ops.post(t, "/jobs/pause", `{"job": "issue-sync"}`); a.status != http.StatusOK {
		t.Fatal(a.status, a.text)
	}
	b.replace = strings.NewReplacer("{waiting}", waiting, "{failed}", failed[0].ID)
	return b
}

// as returns the bundle for a client with the key.
func (b *testBundle) as(key string) *testBundle {
	keyed := *b
	keyed.client = &http.Client{Transport: keyedTransport{b.client.Transport, key}}
	return &keyed
}

type keyedTransport struct {
	http.RoundTripper
	key string
}

func (k keyedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+k.key)
	return k.RoundTripper.RoundTrip(r)
}

// url returns a URL of the route that it serves.
func (b *lockedBundle) url(r route) string {
	if r.url == "" {
		return r.path
	}
	return b.replace.Replace(r.url)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// misuse is a request that the API must refuse.
type misuse struct {
	name, method, url, body string
	headers                 []string
	status                  int
	message                 string
}

// misuses returns requests to a route that the API must refuse.
func (b *lockedBundle) misuses(r route) []misuse {
	const formType = "application/x-www-form-urlencoded"
	url, body := b.url(r), b.replace.Replace(r.body)
	garbage := strings.Repeat("\x00garbage", 1<<17)
	write := []string{"Authorization", "Bearer " + writeKey}
	var list []misuse
	add := func(name, method, url, body string, status int, message string, headers ...string) {
		list = append(list, misuse{name, method, url, body, headers, status, message})
	}
	for _, method := range r.methods() {
		if !r.open {
			add("no key", method, url, body, http.StatusUnauthorized, "a key is needed")
			add("no key and garbage", method, url, garbage, http.StatusUnauthorized, "a key is needed")
			for _, header := range []string{
				"Bearer", "Bearer ", "Bearer " + writeKey[1:], "Bearer " + writeKey + "x", "Bearer " + strings.ToUpper(writeKey), "Bearer ops", writeKey,
				"Bearer ops:" + writeKey, "Bearer write:" + writeKey, "Digest " + writeKey, "Token " + writeKey, basic(writeKey, ""), basic(writeKey, "ops"),
				basic("ops", writeKey+" "), "Basic " + writeKey, "Bearer " + readKey + "," + writeKey, "Bearer " + strings.Repeat("x", 5000),
			} {
				add("wrong key "+header[:min(len(header), 60)], method, url, body, http.StatusUnauthorized, "key is", "Authorization", header)
			}
			add("a key in the query", method, url+"?key="+writeKey+"&access_token="+writeKey, body, http.StatusUnauthorized, "a key is needed")
			add("a key in a cookie", method, url, body, http.StatusUnauthorized, "a key is needed", "Cookie", "key="+writeKey)
		}
	}
	if !r.open {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, "PURGE"} {
			add("read key", method, url, body, http.StatusForbidden, "needs a write key", "Authorization", "Bearer "+readKey)
			add("read key as a password", method, url, body, http.StatusForbidden, "needs a write key", "Authorization", basic("anybody", readKey))
		}
	}
	if !r.writes() {
		for _, url := range r.wrong {
			add("wrong URL "+url, r.method, b.replace.Replace(url), "", 0, "", write...)
		}
		return list
	}
	add("read key and garbage", r.method, url, garbage, http.StatusForbidden, "needs a write key", "Authorization", "Bearer "+readKey)
	for _, site := range []string{"cross-site", "same-site", "unknown"} {
		add("from a page "+site, r.method, url, body, http.StatusForbidden, "another site", append(write, "Sec-Fetch-Site", site)...)
	}
	add("a form of another site", r.method, url, "job=user-sync", http.StatusForbidden, "another site",
		append(write, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Origin", "https://evil.example", "Content-Type", formType)...)
	add("from an old browser", r.method, url, "", http.StatusForbidden, "another site", append(write, "Origin", "https://evil.example")...)
	add("from a page without an origin", r.method, url, "", http.StatusForbidden, "another site", append(write, "Origin", "null")...)
	add("1 MiB of garbage", r.method, url, garbage, http.StatusRequestEntityTooLarge, "at most 65536 bytes", write...)
	for _, url := range r.wrong {
		add("wrong URL "+url, r.method, b.replace.Replace(url), body, 0, "", write...)
	}
	if r.fields == nil {
		return list
	}
	for _, body := range []string{garbage[:1000], "null", "7", `"text"`, "true", "[]", "{", `{"a": }`} {
		if r.dashboard() && body == "null" { // asynqmon takes it for an empty list
			continue
		}
		add("the body "+body[:min(len(body), 20)], r.method, url, body, http.StatusBadRequest, "", write...)
	}
	values := map[string]string{"null": "null", "boolean": "true", "number": "7", "string": `"text"`, "array": `["user-sync"]`, "object": `{"a": 1}`}
	for _, field := range slices.Sorted(maps.Keys(r.fields)) {
		for _, kind := range slices.Sorted(maps.Keys(values)) {
			if kind == r.fields[field] || r.dashboard() && kind == "null" {
				continue
			}
			add(field+" is "+kind, r.method, url, fmt.Sprintf(`{%q: %s}`, field, values[kind]), http.StatusBadRequest, "", write...)
		}
	}
	if !r.dashboard() {
		add("a form", r.method, url, "job=user-sync", http.StatusUnsupportedMediaType, "Content-Type was", append(write, "Content-Type", formType)...)
	}
	return list
}

// A refused request changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setupLocked(t)
	before := b.dump(t)
	if len(before) < 8 {
		t.Fatalf("there is nothing to be changed: %v", before)
	}
	for _, r := range routes {
		t.Run(strings.ReplaceAll(r.String(), "/", " "), func(t *testing.T) {
			for _, m := range b.misuses(r) {
				a := b.request(t, m.method, m.url, m.body, m.headers...)
				switch {
				case m.status == 0 && (a.status < 400 || a.status >= 500), m.status != 0 && a.status != m.status:
					t.Errorf("%s: %s %s: %d %.200s, want %d", m.name, m.method, m.url, a.status, a.text, m.status)
				case m.method == http.MethodHead:
				case m.message != "":
					refused(t, a, m.message)
				}
				if asked := strings.Join(a.header.Values("WWW-Authenticate"), ", "); (asked == `Basic realm="codex-jobs", Bearer`) != (a.status == http.StatusUnauthorized) {
					t.Errorf("%s: the answer %d asks for %q", m.name, a.status, asked)
				}
				for _, key := range []string{readKey, writeKey} {
					if strings.Contains(a.text, key) {
						t.Errorf("%s: the answer has a key: %s", m.name, a.text)
					}
				}
				if changed := changes(before, b.dump(t)); changed != nil {
					t.Fatalf("%s: in Redis, %v", m.name, changed)
				}
			}
		})
	}
	for _, key := range []string{readKey, writeKey, readKey[1:], writeKey[1:]} {
		if strings.Contains(b.log.String(), key) {
			t.Error("the log has a key")
		}
	}
	if !slices.ContainsFunc(b.log.Find(procs.Match{Msg: "Request refused", Attrs: procs.Attrs{"level": "INFO"}}), hasRequestID) {
		t.Error("the log does not say which request was refused")
	}
}

// hasRequestID reports whether a line of the log names a request.
func hasRequestID(line procs.Entry) bool {
	id, _ := line.Attrs["requestId"].(string)
	return id != ""
}

// With a valid key each route works, and the log says who has used it.
func TestAllowed(t *testing.T) {
	t.Parallel()
	for _, r := range routes {
		t.Run(strings.ReplaceAll(r.String(), "/", " "), func(t *testing.T) {
			t.Parallel()
			b := setupLocked(t)
			before := b.dump(t)
			credentials := map[string]string{"ops": "Bearer " + writeKey}
			if !r.writes() {
				credentials = map[string]string{
					"ops": "Bearer " + writeKey, "viewer": "Bearer " + readKey, "ops ": basic("", writeKey), "viewer ": basic("me", readKey),
					"viewer  ": "bearer  " + readKey,
				}
				if r.open {
					credentials[""] = ""
				}
			}
			// On a busy machine Redis can be too late for one of the dashboard's answers, which says so with a 500. What changes nothing is
			// asked again then.
			request := func(method, body string, headers ...string) (a answer) {
				for deadline := time.Now().Add(time.Minute); ; {
					a = b.request(t, method, b.url(r), body, headers...)
					if r.writes() || a.status != http.StatusInternalServerError || !strings.Contains(a.text, "i/o timeout") || time.Now().After(deadline) {
						return a
					}
				}
			}
			for client, header := range credentials {
				for _, method := range r.methods() {
					if method == http.MethodHead && r.dashboard() {
						continue // asynqmon does not take it everywhere
					}
					a := request(method, b.replace.Replace(r.body), "Authorization", header, "Sec-Fetch-Site", "same-origin")
					if a.status/100 != 2 && (!r.conflict || a.status != http.StatusConflict) {
						t.Errorf("%q: %s: %d %s", client, method, a.status, a.text)
					}
					if !r.writes() {
						a = request(method, strings.Repeat("\x00garbage", 1<<17), "Authorization", header)
						if a.status/100 != 2 && a.status != http.StatusRequestEntityTooLarge && a.status != http.StatusBadRequest {
							t.Errorf("%q: %s with a body: %d %s", client, method, a.status, a.text)
						}
					}
				}
			}
			if changed := changes(before, b.dump(t)); (changed != nil) != (r.writes() && !r.conflict) {
				t.Errorf("in Redis, %v", changed)
			}
			change := procs.Match{Msg: "Request", Attrs: procs.Attrs{"level": "INFO", "method": r.method, "path": b.url(r), "key": "ops"}}
			if said := slices.ContainsFunc(b.log.Find(change), hasRequestID); said != (r.writes() && !r.conflict) {
				t.Errorf("the log says who has changed something: %v", said)
			}
			if log := b.log.String(); strings.Contains(log, readKey) || strings.Contains(log, writeKey) {
				t.Error("the log has a key")
			}
		})
	}
}

// Paths without a route need a key, too, so that a client without one does not learn which paths exist.
func TestEverythingElseNeedsAKey(t *testing.T) {
	t.Parallel()
	b := setupLocked(t)
	for _, path := range []string{
		"/", "/jobs/", "/jobs/status/", "/nothing", "/health/", "/livez/x", "//health", "/health/../jobs/status", "/%68ealth/", "/HEALTH", "/favicon.ico",
		"/dashboard/static/js/x.js", "/health;/jobs/status", "/health%2f..%2fjobs/status",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions, http.MethodConnect, "PURGE"} {
			if a := b.request(t, method, path, ""); a.status != http.StatusUnauthorized {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.text)
			}
		}
	}
	for _, path := range []string{"/livez", "/readyz", "/health"} { // they change nothing
		if a := b.request(t, http.MethodPost, path, "{}"); a.status != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d %s", path, a.status, a.text)
		}
	}
}

// Without keys the API refuses host names that others can point here (DNS rebinding): a browser cannot tell them from ours.
func TestHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open := setup(t, func(o *api.Options) { o.AuthDisabled = true })
	locked := setupLocked(t).as(readKey)
	before := b.dump(t)
	for host, safe := range map[string]bool{
		"localhost": true, "LOCALHOST:4000": true, "127.0.0.1:4000": true, "[::1]:4000": true, "[::1]": true, "10.1.2.3": true, "api:4000": true,
		"host.docker.internal:4000": true, "jobs.localhost": true, "evil.example": false, "evil.example:4000": false, "127.0.0.1.evil.example": false,
		"localhost.evil.example:4000": false, "notlocalhost.": false, "127.0.0.1.nip.io": false, "internal.evil.example": false,
	} {
		get := func(b *testBundle, method, path string) answer {
			request, err := http.NewRequestWithContext(t.Context(), method, b.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = host
			response, err := b.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			return answer{status: response.StatusCode}
		}
		for _, path := range []string{"/jobs/status", "/dashboard"} {
			if a := get(b, http.MethodGet, path); (a.status == http.StatusOK) != safe || !safe && a.status != http.StatusForbidden {
				t.Errorf("%s at %s: %d", path, host, a.status)
			}
		}
		if !safe {
			if a := get(b, http.MethodPost, "/jobs/trigger/user-sync"); a.status != http.StatusForbidden {
				t.Errorf("a trigger at %s: %d", host, a.status)
			}
		}
		for _, other := range []answer{get(b, http.MethodGet, "/health"), get(open, http.MethodGet, "/jobs/status"), get(locked, http.MethodGet, "/jobs/status")} {
			if other.status != http.StatusOK {
				t.Errorf("what does not depend on the host, at %s: %d", host, other.status)
			}
		}
	}
	if changed := changes(before, b.dump(t)); changed != nil {
		t.Errorf("in Redis, %v", changed)
	}
}
