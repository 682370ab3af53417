//go:build browser

package browser_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

const welcomeMail = `//section[@aria-label="Welcome mail"]`

// The form of a job type that is no sync is made from its payload: of examples/directory, the mail to a new user.
func TestForm(t *testing.T) {
	type mail struct{ To, Subject, Text string }
	sent := make(chan mail, 10)
	directory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m mail
		if json.NewDecoder(r.Body).Decode(&m) == nil {
			sent <- m
		}
		_, _ = w.Write([]byte(`{"id": "m1"}`)) // the worker may have gone
	}))
	t.Cleanup(directory.Close)
	s := startFrom(t, buildExample(t), 1, "DIRECTORY_URL="+directory.URL, "USER_SYNC_INTERVAL=24h")
	b := open(t)
	b.axe = axe(t)
	b.do(t, chromedp.Navigate(s.url+"/"))
	b.says(t, "Welcome mail idle", "No schedule")

	// A required field, a choice, and what a field is by default.
	b.press(t, welcomeMail, "Trigger")
	b.says(t, "Trigger: Welcome mail", "Email (required)", "An email address", "The name to greet", "Language")
	if options := evaluate[string](t, b, `[...document.querySelector("dialog [name=language]").options].map(o => o.text).join()`); options != "default,en,de" && options != "en (default),de" {
		t.Errorf("the languages are %q", options)
	}
	b.looksRight(t, "form")
	b.confirm(t, "Trigger")
	if missing := evaluate[string](t, b, `document.querySelector("dialog[open] :invalid [name], dialog[open] input:invalid")?.name ?? ""`); missing != "email" {
		t.Errorf("without the required field the form complains of %q", missing)
	}

	// What only the API can judge, it says.
	b.do(t, chromedp.SendKeys(`dialog [name=email]`, "ada"))
	b.confirm(t, "Trigger")
	b.says(t, `Email was "ada"; it must be an email address`)
	b.complaints() // of the browser, that the API refused it
	if kept := evaluate[string](t, b, `document.querySelector("dialog[open] [name=email]")?.value ?? "no dialog"`); kept != "ada" {
		t.Errorf("after a refusal the form has %q", kept)
	}
	b.do(t, chromedp.SendKeys(`dialog [name=email]`, "@codex.example"), chromedp.SetValue(`dialog [name=language]`, "de"))
	b.confirm(t, "Trigger")
	if got, want := testbed.Receive(t, "the mail", sent), (mail{"ada@codex.example", "Willkommen", "Hallo ada@codex.example, dein Konto ist bereit."}); got != want {
		t.Errorf("the mail is %+v, want %+v", got, want)
	}
	b.says(t, "Welcome mail triggered successfully", "it is completed", "Last: completed")
	b.do(t, chromedp.Click(welcomeMail+`//p[contains(., "Last:")]/a`))
	b.says(t, `"language":"de"`, "Result", `{"mailId":"m1"}`)
	b.looksRight(t, "form-run")
	if problems := b.complaints(); len(problems) > 0 {
		t.Errorf("the browser complained: %q", problems)
	}
}

// buildExample builds the programs of examples/directory, and returns their folder.
func buildExample(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/...")
	cmd.Dir = filepath.Join("..", "..", "examples", "directory")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the example: %v\n%s", err, out)
	}
	return bin
}
