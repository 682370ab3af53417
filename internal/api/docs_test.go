package api_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var command = regexp.MustCompile(`(?s)<pre class="curl">(.*?)</pre>`)

// commands returns the commands that a page shows.
func commands(page string) []string {
	var list []string
	for _, found := range command.FindAllStringSubmatch(page, -1) {
		list = append(list, html.UnescapeString(found[1]))
	}
	return list
}

// isPage checks that an answer is a page that loads nothing, with the headers that a browser needs.
func isPage(t *testing.T, a answer) {
	t.Helper()
	if got := a.header.Get("Content-Type"); a.status != http.StatusOK || got != "text/html; charset=utf-8" {
		t.Fatalf("got %d %s %.300s", a.status, got, a.text)
	}
	for _, foreign := range []string{"<script", "javascript:", "src=", "@import", "url(", `href="http`, `href="//`, "onclick", "style=", "ZgotmplZ"} {
		if strings.Contains(a.text, foreign) {
			t.Errorf("the page has %s", foreign)
		}
	}
	_, style, _ := strings.Cut(a.text, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	hash := sha256.Sum256([]byte(style))
	if want, policy := base64.StdEncoding.EncodeToString(hash[:]), a.header.Get("Content-Security-Policy"); style == "" || !strings.Contains(policy, "style-src 'sha256-"+want+"'") {
		t.Errorf("the policy %q does not allow the page's style, whose hash is %s", policy, want)
	}
}

// The page has the whole description, and links that lead somewhere.
func TestDocs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.get(t, "/docs")
	isPage(t, a)
	if operations := describedAPI().operations(); len(commands(a.text)) != len(operations) {
		t.Errorf("there are %d commands for %d operations", len(commands(a.text)), len(operations))
	}
	for _, want := range []string{
		`<li><a href="#triggerJob">`, `&#34;user-sync&#34; or &#34;project-sync&#34; or &#34;issue-sync&#34;`, "integer, from 1 to 10000",
		"The default is <code>incremental</code>", `<a href="#schema-JobListAnswer">`, "activeJobs", "jobs.initialized", "<code>coalesced</code>",
		"1795495826751:user-sync:mq4z2etl", "Where the server has keys", `<span class="method post">POST</span> <code>your URL</code>`,
		"<h4>Headers</h4>", "<code>webhook-signature</code>", `<a href="#schema-RecordUpdate">`,
	} {
		if !strings.Contains(a.text, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for _, link := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(a.text, -1) {
		if strings.Count(a.text, `id="`+link[1]+`"`) != 1 {
			t.Errorf("a link leads to #%s, which is not there once", link[1])
		}
	}
}

// Every command of the page works in a shell, and its answer agrees with the description.
func TestCommandsOfDocs(t *testing.T) {
	t.Parallel()
	adjust, _, _ := withHistory(t)
	b := setup(t, adjust)
	for _, command := range commands(b.get(t, "/docs").text) {
		shell := exec.CommandContext(t.Context(), "sh", "-c", command+` -sS -o /dev/null -w '%{http_code}'`)
		output, err := shell.CombinedOutput()
		want := "200"
		if strings.Contains(command, "mq4z2etl") { // there is no such job here
			want = "404"
		}
		if strings.Contains(command, "/notify/test") { // there is no worker
			want = "409"
		}
		if err != nil || string(output) != want {
			t.Errorf("%s\nanswered with %s, %v; want %s", command, output, err, want)
		}
	}
	if got := b.status(t, ""); got.Counts.Waiting != 1 {
		t.Errorf("after the commands the status is %+v", got)
	}
}

// The commands have the reader's address of the server, and a key if the reader has one.
func TestCommandsFollowTheReader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, test := range []struct {
		headers []string
		want    string
	}{
		{nil, "curl '" + b.url + "/jobs/status?job=all'"},
		{[]string{"X-Forwarded-Proto", "https"}, "curl '" + strings.Replace(b.url, "http:", "https:", 1) + "/jobs/status?job=all'"},
		{[]string{"Authorization", "Basic eDp5"}, "curl '" + b.url + "/jobs/status?job=all' \\\n  -H \"Authorization: Bearer $API_KEY\""},
	} {
		list := commands(b.request(t, http.MethodGet, "/docs", "", test.headers...).text)
		if got := list[1]; got != test.want {
			t.Errorf("%v: %s, want %s", test.headers, got, test.want)
		}
		if all := strings.Join(list, "\n"); strings.Contains(all, "/health' \\") {
			t.Errorf("%v: a key is sent where none is needed: %s", test.headers, all)
		}
	}
	// Names with special characters of a shell are not shown.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/docs", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "a'$(id)"
	response, err := b.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(page), "http://localhost/") || strings.Contains(string(page), "$(id)") {
		t.Errorf("with a Host for a shell: %v, %.300s", err, page)
	}
}

// Browsers get the console, with its script and its style sheet and nothing else. Other clients get links.
func TestIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	links := []string{"/dashboard", "/docs", "/openapi.json", "/health", "/jobs/status", "/processes"}
	page := b.request(t, http.MethodGet, "/", "", "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	if page.status != http.StatusOK || page.header.Get("Content-Type") != "text/html; charset=utf-8" ||
		!strings.HasPrefix(page.header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ") {
		t.Errorf("%d %v: %s", page.status, page.header, page.text)
	}
	var loads []string
	for _, load := range regexp.MustCompile(`(?:<script[^>]* src|<link rel="stylesheet" href)="([^"]+)"`).FindAllStringSubmatch(page.text, -1) {
		loads = append(loads, load[1])
	}
	slices.Sort(loads)
	if !slices.Equal(loads, []string{"/console.css", "/console.js"}) {
		t.Errorf("the page loads %q", loads)
	}
	for path, kind := range map[string]string{"/console.css": "text/css; charset=utf-8", "/console.js": "text/javascript; charset=utf-8"} {
		if a := b.get(t, path); a.status != http.StatusOK || a.header.Get("Content-Type") != kind || a.text == "" {
			t.Errorf("%s: %d %s", path, a.status, a.header.Get("Content-Type"))
		}
	}
	for _, accept := range []string{"", "*/*", "application/json"} {
		a := b.request(t, http.MethodGet, "/", "", "Accept", accept)
		data, _ := a.json(t)["data"].(map[string]any)
		if a.header.Get("Content-Type") != "application/json; charset=utf-8" || a.header.Get("Vary") != "Accept" || len(data) != len(links) {
			t.Errorf("Accept %q: %s", accept, a.text)
		}
		for _, link := range links {
			if !strings.Contains(a.text, `:"`+link+`"`) {
				t.Errorf("there is no %s in %s", link, a.text)
			}
			if there := b.get(t, link); there.status != http.StatusOK {
				t.Errorf("%s: %d %s", link, there.status, there.text)
			}
		}
	}
}
