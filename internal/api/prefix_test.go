package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/api"
	"github.com/codex-api/codex-jobs/internal/cli"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

// page is what a browser asks for.
const page = "text/html,application/xhtml+xml"

// Every page that is shown below a prefix has its links, files and commands there. The API serves it whether the proxy passes
// the prefix on or strips it.
func TestPrefix(t *testing.T) {
	t.Parallel()
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, test := range map[string]struct {
		base      string
		trusted   []netip.Prefix
		header    string // X-Forwarded-Prefix
		passedOn  string // what paths of requests begin with
		seenBelow string // what paths in answers begin with
	}{
		"none":                              {"", nil, "", "", ""},
		"a header of a stranger":            {"", nil, "/evil", "", ""},
		"BASE_PATH, stripped":               {"/codex", nil, "", "", "/codex"},
		"BASE_PATH, passed on":              {"/codex", nil, "", "/codex", "/codex"},
		"BASE_PATH, a header of a stranger": {"/codex", nil, "/evil", "", "/codex"},
		"the header, stripped":              {"", local, "/team-1/codex_jobs", "", "/team-1/codex_jobs"},
		"the header, passed on":             {"", local, "/codex", "/codex", "/codex"},
		"the header over BASE_PATH":         {"/codex", local, "/outer/codex", "/codex", "/outer/codex"},
		"no header of a proxy":              {"/codex", local, "", "", "/codex"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(o *api.Options) { o.BasePath, o.TrustedProxies = test.base, test.trusted })
			b.undescribed = true // the description has the paths without a prefix
			get := func(path string, headers ...string) answer {
				t.Helper()
				if test.header != "" {
					headers = append(headers, "X-Forwarded-Prefix", test.header)
				}
				a := b.request(t, http.MethodGet, test.passedOn+path, "", headers...)
				if a.status != http.StatusOK {
					t.Errorf("%s: %d %s", path, a.status, a.text)
				}
				return a
			}
			testbed.Await(t, b.log, 1, procs.Match{Msg: "API ready", Attrs: procs.Attrs{"url": b.url + test.base + "/"}})
			index, docs, dashboard := get("/", "Accept", page), get("/docs"), get("/dashboard/queues/user-sync")
			for _, a := range []answer{index, docs, dashboard} {
				for _, link := range regexp.MustCompile(`(?:href|src)="(/[^"]*)"`).FindAllStringSubmatch(a.text, -1) {
					path, ok := strings.CutPrefix(link[1], test.seenBelow+"/")
					if !ok {
						t.Errorf("a link leads to %s, which is not below %s", link[1], test.seenBelow)
						continue
					}
					get("/" + path)
				}
			}
			if data := get("/", "Accept", "application/json").text; !strings.Contains(data, `"dashboard":"`+test.seenBelow+`/dashboard"`) {
				t.Errorf("the links are %s", data)
			}
			if at := b.url + test.seenBelow; !strings.Contains(docs.text, "curl &#39;"+at+"/jobs/status?job=all&#39;") && !strings.Contains(docs.text, "'"+at+"/jobs/status?job=all'") {
				t.Errorf("no command is for %s: %.3000s", at, docs.text)
			}
			server := test.seenBelow
			if server == "" {
				server = "/"
			}
			if description := get("/openapi.json"); !strings.Contains(strings.ReplaceAll(description.text, " ", ""), `"servers":[{"url":"`+server+`"}]`) {
				t.Errorf("the description does not name the server %s", server)
			}
			root := test.seenBelow + "/dashboard"
			for _, script := range []string{`FLAG_ROOT_PATH="` + root + `"`, `i.p="` + root + `/"`} {
				if !strings.Contains(strings.ReplaceAll(dashboard.text, `\/`, "/"), script) {
					t.Errorf("the dashboard has no %s", script)
				}
			}
			for _, script := range regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllStringSubmatch(dashboard.text, -1) {
				hash := sha256.Sum256([]byte(script[1]))
				if !strings.Contains(dashboard.header.Get("Content-Security-Policy"), base64.StdEncoding.EncodeToString(hash[:])) {
					t.Errorf("the page may not run %.60s", script[1])
				}
			}
			get("/dashboard/api/queues")
			for _, elsewhere := range []string{"/evil/health", "/codexx/health", "/codex/codex/health"} {
				if a := b.request(t, http.MethodGet, elsewhere, "", "X-Forwarded-Prefix", test.header); a.status != http.StatusNotFound {
					t.Errorf("%s: %d %s", elsewhere, a.status, a.text)
				}
			}
		})
	}
}

// What goes astray on the dashboard is led back below the prefix.
func TestRedirectsBelowAPrefix(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *api.Options) { o.BasePath = "/codex" })
	b.undescribed = true
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := b.get(t, "/codex/dashboard//queues")
	if to := a.header.Get("Location"); a.status != http.StatusMovedPermanently || to != "/codex/dashboard/queues" {
		t.Errorf("got %d to %q", a.status, to)
	}
}

// A prefix ends up in pages and scripts: a proxy that is trusted must not pass on one that a client made up.
func TestRefusedPrefixes(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *api.Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	b.undescribed = true
	for _, prefix := range []string{"/", "codex", "/codex/", "//evil.example", "/a//b", "/..", "/a/../b", "/.", `/"`, "/<script>", "/a b", "/a,/b", "/é", `/\`, "/%2e", "https://evil.example", "/" + strings.Repeat("x", 300)} {
		for _, path := range []string{"/", "/docs", "/dashboard", "/jobs/status", "/health"} {
			a := b.request(t, http.MethodGet, path, "", "X-Forwarded-Prefix", prefix)
			if a.status != http.StatusBadRequest {
				t.Errorf("%s below %q: %d", path, prefix, a.status)
			}
			refused(t, a, "X-Forwarded-Prefix was ", "it must be one path such as /codex")
		}
	}
}

// The gate stands before every path with a prefix, too.
func TestPrefixNeedsAKey(t *testing.T) {
	t.Parallel()
	b := setupLocked(t, func(o *api.Options) { o.BasePath = "/codex" })
	b.undescribed = true
	for _, path := range []string{"/codex", "/codex/", "/codex/jobs/status", "/codex/dashboard", "/codex//health", "/codex/health/", "/codex/codex/health"} {
		if a := b.get(t, path); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	if a := b.get(t, "/codex/health"); a.status != http.StatusOK {
		t.Errorf("the health: %d %s", a.status, a.text)
	}
	var out, errOut strings.Builder
	status := cli.Run(t.Context(), cli.Program{Out: &out, Err: &errOut}, []string{"health", "--server", b.testBundle.url + "/codex/"})
	if status == 2 || status == 3 {
		t.Errorf("codexctl ended with %d: %s", status, errOut.String())
	}
}
