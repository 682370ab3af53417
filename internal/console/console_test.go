package console_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/console"
)

// inline finds what the policy would not let run, in a page or in the HTML that a script makes.
var inline = regexp.MustCompile(`(?i)<style|<script>|\sstyle=|<[^>]+\son\w+=|javascript:`)

func TestPage(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"", "/codex"} {
		page, err := console.Page(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`src="` + base + `/console.js"`, `href="` + base + `/console.css"`, `data-base="` + base + `"`, `href="` + base + `/dashboard"`,
		} {
			if !strings.Contains(string(page), want) {
				t.Errorf("below %q the page has no %s", base, want)
			}
		}
		if found := inline.FindString(string(page)); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
}

// The script makes no HTML of texts, and asks no other server.
func TestScript(t *testing.T) {
	t.Parallel()
	for path, kind := range map[string]string{console.ScriptPath: "javascript", console.StylePath: "text/css"} {
		answer := httptest.NewRecorder()
		console.Serve(answer, httptest.NewRequest(http.MethodGet, path, nil), path)
		if answer.Code != http.StatusOK || !strings.Contains(answer.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: status %d, type %q", path, answer.Code, answer.Header().Get("Content-Type"))
		}
		text := strings.ReplaceAll(answer.Body.String(), "http://www.w3.org/2000/svg", "")
		for _, never := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "://", "@import", "url("} {
			if strings.Contains(text, never) {
				t.Errorf("%s has %s", path, never)
			}
		}
	}
}
