//go:build browser

package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/access/accesstest"
	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/mongodb"
	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/internal/testbed"
)

const (
	writeKey = "a-write-key-for-the-console"
	readKey  = "a-read-key-for-the-console"
	// rescueLimit is how long the rescue of a lost worker's run may take, on a busy machine.
	rescueLimit = 2 * time.Minute
	// watched is how long a request to the endpoint takes while a run is watched.
	watched = 150 * time.Millisecond
)

// endpoint does the work of the user sync, as slowly as the test wants or not at all. It refuses names with markup, and projects.
type endpoint struct {
	url   string
	delay atomic.Int64 // a time.Duration
	away  atomic.Bool
}

func startEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := new(endpoint)
	server := httptest.NewServer(http.HandlerFunc(e.answer))
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *endpoint) answer(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Records []struct {
			ID       json.RawMessage `json:"_id"`
			Username string          `json:"username"`
		} `json:"records"`
	}
	if e.away.Load() || json.NewDecoder(r.Body).Decode(&asked) != nil {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/project-sync" {
		http.Error(w, "no projects today", http.StatusForbidden)
		return
	}
	type result struct {
		ID    json.RawMessage `json:"_id"`
		Error string          `json:"error,omitempty"`
	}
	var said struct {
		Results []result `json:"results"`
	}
	for _, record := range asked.Records {
		judged := result{ID: record.ID}
		if strings.Contains(record.Username, "<") {
			judged.Error = fmt.Sprintf("the name %s has markup in it", record.Username)
		}
		said.Results = append(said.Results, judged)
	}
	select {
	case <-time.After(time.Duration(e.delay.Load())):
	case <-r.Context().Done():
	}
	_ = json.NewEncoder(w).Encode(said) // the worker may have gone
}

// A person's way through the console, one step after another.
func TestConsole(t *testing.T) {
	work := startEndpoint(t)
	s := start(t, 2, "API_KEYS=ops:write:"+writeKey+",guest:read:"+readKey,
		"USER_SYNC_URL="+work.url+"/user-sync", "USER_SYNC_FIELDS=username", "PROJECT_SYNC_URL="+work.url+"/project-sync", "PROJECT_SYNC_FIELDS=name", "SYNC_BATCH_SIZE=5", "SYNC_RANGE_SIZE=50",
		"USER_SYNC_INTERVAL=24h") // hardly ever does a tick come in between
	s.key = writeKey
	b := open(t)
	b.axe = axe(t)
	b.do(t, chromedp.Navigate(asUser(s.url, writeKey)))
	s.insert(t, "projects", bson.D{{Key: "_id", Value: "p1"}, {Key: "name", Value: "Orion"}})
	for _, step := range []struct {
		name string
		do   func(*testing.T, *system, *browser, *endpoint)
	}{
		{"what there is", idle},
		{"pause and resume", pauseInConsole},
		{"a run from 0 to 100", watchRun},
		{"names that are HTML", markupInNames},
		{"times of another zone", anotherZone},
		{"what waits", waits},
		{"cancel and retry", cancelAndRetry},
		{"change many jobs", changeMany},
		{"a hidden page asks nothing", hidden},
		{"the API restarts", apiRestarts},
		{"a worker is killed", workerKilled},
		{"the history of two weeks", twoWeeks},
		{"a read key, TLS and a base path", readOnly},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, s, b, work) }) {
			t.Logf("the page says:\n%s", b.text())
			b.picture(t, "views/failed.png")
			break
		}
		if problems := b.complaints(); len(problems) > 0 {
			t.Errorf("after %q the browser complained: %q", step.name, problems)
		}
	}
}

// asUser returns the URL with a key, as a person gives it to the browser's login.
func asUser(address, key string) string {
	u, _ := url.Parse(address) // which is the test's own
	u.User = url.UserPassword("person", key)
	u.Path += "/"
	return u.String()
}

const userSync = `//section[@aria-label="User sync"]`

// press presses the button with a text in a part of the page, by the keyboard: what moves on the page does not matter to it.
func (b *browser) press(t *testing.T, in, text string) {
	t.Helper()
	button := fmt.Sprintf(`%s//button[normalize-space()=%q]`, in, text)
	testbed.Eventually(t, button, func() bool {
		return evaluate[bool](t, b, fmt.Sprintf(`document.evaluate(%q, document, null, XPathResult.FIRST_ORDERED_NODE_TYPE).singleNodeValue?.focus(),
			document.activeElement.matches("button") && document.activeElement.textContent === %q`, button, text))
	})
	b.do(t, chromedp.KeyEvent("\r"))
}

// confirm clicks a button of the dialog.
func (b *browser) confirm(t *testing.T, text string) {
	t.Helper()
	b.press(t, "//dialog[@open]", text)
}

// dismiss removes the notes, so that the next step does not read them.
func (b *browser) dismiss(t *testing.T) {
	t.Helper()
	evaluate[bool](t, b, `document.querySelectorAll("#said button").forEach(b => b.click()), true`)
}

// hash goes to a view.
func (b *browser) hash(t *testing.T, hash string) {
	t.Helper()
	evaluate[bool](t, b, fmt.Sprintf(`location.hash = %q, true`, hash))
}

func evaluate[T any](t *testing.T, b *browser, script string) T {
	t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("evaluating %.200s: %v", script, err)
	}
	return value
}

// looksRight checks a view in both themes and in both widths, and that nothing comes from elsewhere.
func (b *browser) looksRight(t *testing.T, view string) {
	t.Helper()
	b.fits(t)
	for _, theme := range []string{"dark", "light"} {
		b.theme(t, theme)
		for _, width := range []int64{400, 1400, usualWidth} {
			b.do(t, chromedp.EmulateViewport(width, 900))
			if found := evaluate[[]string](t, b, b.axe+`; axe.run().then(r => r.violations.filter(v => v.impact === "serious" || v.impact === "critical")
				.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 200)).join(" | ")))`); len(found) > 0 {
				t.Errorf("%s, %s, %d pixels: axe-core finds %q", view, theme, width, found)
			}
			b.picture(t, fmt.Sprintf("views/%s-%s-%d.png", view, theme, width))
		}
	}
	b.do(t, chromedp.EmulateViewport(usualWidth, usualHeight))
	if others := evaluate[[]string](t, b, `performance.getEntriesByType("resource").map(e => e.name).filter(u => new URL(u).host !== location.host)`); len(others) > 0 {
		t.Errorf("%s: the page has asked for %q", view, others)
	}
}

// theme sets which colours the viewer prefers.
func (b *browser) theme(t *testing.T, theme string) {
	t.Helper()
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		return err
	}))
}

// axe returns the script of axe-core, which npm installs into bin.
func axe(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "..", "bin", "browser"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("installing axe-core: %v\n%s", err, out)
	}
	script, err := os.ReadFile(filepath.Join(folder, "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(script)
}

func idle(t *testing.T, s *system, b *browser, _ *endpoint) {
	b.says(t, "User sync idle", "Next tick in", "No job has ended yet.", "Key ops", "scheduler", "waits for a job", "enqueues a job at each tick")
	for _, worker := range s.workers {
		b.says(t, fmt.Sprintf(":%d:", worker.PID()))
	}
	b.looksRight(t, "now")
	// The link to the content is for the keyboard. It must not change the view.
	b.hash(t, "#/history")
	b.says(t, "Look again")
	evaluate[bool](t, b, `document.getElementById("skip").click(), true`)
	if at := evaluate[string](t, b, `location.hash + " " + document.activeElement.id`); at != "#/history main" {
		t.Errorf("after the link to the content the page is at %q", at)
	}
	b.hash(t, "#/")
}

func pauseInConsole(t *testing.T, s *system, b *browser, _ *endpoint) {
	for _, step := range []struct {
		in, button, state string
		paused            bool
	}{
		{userSync, "Pause", "User sync paused", true},
		{userSync, "Resume", "User sync idle", false},
		{`//section[@aria-label="All job types"]`, "Pause all", "Issue sync paused", true},
		{`//section[@aria-label="All job types"]`, "Resume all", "Issue sync idle", false},
	} {
		b.press(t, step.in, step.button)
		b.says(t, step.state)
		testbed.Eventually(t, "the API to agree with the console", func() bool { return s.paused(t) == step.paused })
	}
	b.says(t, "User sync jobs paused", "User sync jobs resumed", "All jobs paused", "All jobs resumed")
	b.dismiss(t)
}

// sync triggers a full run by the console.
func (b *browser) sync(t *testing.T) {
	t.Helper()
	b.press(t, userSync, "Sync now")
	b.do(t, chromedp.SetValue(`dialog [name=syncType]`, "full"))
	b.confirm(t, "Sync now")
	b.says(t, "User sync (full) triggered successfully")
}

// recordProgress lets the page note the progress of the user sync whenever it is another.
const recordProgress = `window.progress = []; clearInterval(window.noting); window.noting = setInterval(() => {
	const p = document.querySelector('[aria-label="User sync"] progress');
	if (p && p.value !== progress.at(-1)) progress.push(p.value);
}, 100)`

func watchRun(t *testing.T, _ *system, b *browser, work *endpoint) {
	work.delay.Store(int64(3 * watched))
	// What a person typed wrong is said, and nothing is sent.
	b.press(t, userSync, "Sync now")
	b.do(t, chromedp.SendKeys(`dialog [name=batchSize]`, "many"))
	b.confirm(t, "Sync now")
	if invalid := evaluate[bool](t, b, `document.querySelector("dialog[open] [name=batchSize]:invalid") !== null`); !invalid {
		t.Error("the dialog takes a batch size that is no number")
	}
	b.looksRight(t, "dialog")
	b.confirm(t, "Not now")

	evaluate[int](t, b, recordProgress)
	b.sync(t)
	b.says(t, "User sync active", "ranges done", "attempt 1 of 3", "(range ")
	b.says(t, "records/s", "left")
	testbed.Eventually(t, "both workers to have ranges", func() bool { return strings.Count(b.text(), "(range ") > 1 })
	b.picture(t, "console.png")
	b.looksRight(t, "running")
	b.says(t, "Last: completed", fmt.Sprintf("%d records, 1 error", userCount), "User sync idle")
	progress := evaluate[[]float64](t, b, `progress`)
	if len(progress) < 4 || !slices.IsSorted(progress) || progress[0] > 40 || progress[len(progress)-1] < 60 {
		t.Errorf("the progress bar went by %v", progress)
	}
	work.delay.Store(0)
	b.dismiss(t)
}

// anotherZone looks at the times of the run in a zone of half hours, and at a filter for them.
func anotherZone(t *testing.T, _ *system, b *browser, _ *endpoint) {
	const started = `document.evaluate('//dt[.="Started"]/following-sibling::dd[1]/time', document, null, XPathResult.FIRST_ORDERED_NODE_TYPE).singleNodeValue`
	b.do(t, chromedp.Click(userSync+`//p[contains(., "Last:")]/a`))
	b.says(t, "Times in UTC", "Started")
	b.zone(t, "Asia/Kolkata")
	b.do(t, chromedp.Reload())
	b.says(t, "Times in Asia/", "Started")
	shown := evaluate[[]string](t, b, `[`+started+`].map(e => [e.dateTime, e.textContent, e.title])[0]`)
	at, err := time.Parse(time.RFC3339, shown[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := at.In(time.FixedZone("", 5*3600+1800)).Format(time.DateTime); shown[1] != want || shown[2] != at.UTC().Format(time.DateTime)+" UTC" {
		t.Errorf("%s is shown as %q, and %q on hover; want %s", at, shown[1], shown[2], want)
	}
	const hash = "#/history?from=2026-11-27T20%3A00%3A00.000Z"
	b.hash(t, hash)
	b.says(t, "Look again")
	testbed.Eventually(t, "the filter in the zone of the browser", func() bool {
		return evaluate[string](t, b, `document.querySelector("[name=from]")?.value ?? ""`) == "2026-11-28T01:30"
	})
	b.do(t, chromedp.Click(`//form//button[.="Search"]`))
	if got := evaluate[string](t, b, `location.hash`); got != hash {
		t.Errorf("the same search is at %s", got)
	}
	b.zone(t, "")
	b.hash(t, "#/")
	b.do(t, chromedp.Reload())
	b.says(t, "Times in UTC")
}

// zone sets the time zone of the browser. An empty name resets it to the time zone of the machine.
func (b *browser) zone(t *testing.T, name string) {
	t.Helper()
	b.do(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: name})
		return err
	}))
}

func markupInNames(t *testing.T, _ *system, b *browser, _ *endpoint) {
	b.do(t, chromedp.Click(userSync+`//p[contains(., "Last:")]/a`))
	b.says(t, "Records that failed", markup, "the name "+markup+" has markup in it", "Ranges: 6", "By\nkey ops", "Attempts", `{"syncType":"full"}`)
	b.do(t, chromedp.EmulateViewport(usualWidth, 1200))
	b.picture(t, "console-run.png")
	b.looksRight(t, "run")
	if got := evaluate[string](t, b, `document.images.length + " " + document.title`); got != "0 Run · codex-jobs" {
		t.Errorf("images and title of the page are %q", got)
	}
	b.hash(t, "#/")
}

func waits(t *testing.T, s *system, b *browser, work *endpoint) {
	// A request that takes 14 seconds has not failed. So the console must not say that the upstream is away.
	work.delay.Store(int64(14 * time.Second))
	b.sync(t)
	b.says(t, "It waits for its upstream since", ", which is slow, or away: working on users")
	b.looksRight(t, "slow")
	if strings.Contains(b.text(), "does not answer") {
		t.Error("the page says of a slow upstream that it does not answer")
	}
	work.away.Store(true)
	work.delay.Store(0)
	b.says(t, "It waits for its upstream, which is away since")

	// What waits says for what: for its turn, for its time.
	behind, later := s.triggerWith(t, `{"syncType": "incremental"}`), s.triggerWith(t, `{"syncType": "full", "delay": 3600000}`)
	b.says(t, "It waits its turn: until ", " has ended.", "It waits for its time: ")
	b.hash(t, "#/run/"+behind)
	b.says(t, "It waits its turn: until ", " has ended.")
	b.press(t, "//main", "Remove")
	b.confirm(t, "Remove the job")
	b.says(t, behind+" removed")
	b.hash(t, "#/run/"+later)
	b.says(t, "It waits for its time: ", " (in 59 min ")
	b.hash(t, "#/")
	b.looksRight(t, "waits")
	b.press(t, `//div[@data-key="`+later+`"]`, "Remove")
	b.confirm(t, "Remove the job")
	b.says(t, later+" removed")
	work.away.Store(false)
	b.says(t, "Last: completed", "User sync idle")
	b.dismiss(t)
	b.complaints() // of the browser, that the page of a job found it no more

	// A paused job type's job waits, and can be removed.
	b.press(t, userSync, "Pause")
	b.says(t, "User sync paused")
	b.sync(t)
	b.says(t, "it is waiting", "It waits until User sync is resumed.")
	b.press(t, userSync, "Remove")
	b.confirm(t, "Remove the job")
	b.says(t, " removed")
	b.dismiss(t)
	b.sync(t)
	b.press(t, userSync, "Cancel waiting")
	b.confirm(t, "Cancel them")
	b.says(t, "User sync: 1 waiting job removed")
	b.press(t, userSync, "Resume")
	b.says(t, "User sync idle")
	b.dismiss(t)
}

func cancelAndRetry(t *testing.T, _ *system, b *browser, work *endpoint) {
	work.delay.Store(int64(watched))
	b.sync(t)
	b.dismiss(t)
	b.press(t, userSync, "Cancel")
	b.confirm(t, "Not now")
	b.says(t, "User sync active")
	b.press(t, userSync, "Cancel")
	b.confirm(t, "Cancel the job")
	b.says(t, "is being cancelled", "it is cancelled", "Last: cancelled")
	b.dismiss(t)
	work.delay.Store(0)
	b.do(t, chromedp.Click(userSync+`//p[contains(., "Last:")]/a`))
	b.press(t, "//main", "Retry")
	b.says(t, "will be tried again", "it is completed")
	b.says(t, "completed\nJob type", "a retry by hand with key ops at ", "after 1 earlier attempt: see below", "1, before the retry")
	if bad := evaluate[string](t, b, `[...document.querySelectorAll('dl .bad, [aria-label=Attempts] .bad')].map(e => e.textContent).join()`); bad != "" {
		t.Errorf("the page of a cancelled job has %q as a failure", bad)
	}
	b.hash(t, "#/")
	b.dismiss(t)
}

func changeMany(t *testing.T, s *system, b *browser, _ *endpoint) {
	all := `//section[@aria-label="All job types"]`
	b.press(t, userSync, "Retry failed")
	b.says(t, "User sync: no job has failed")
	id := s.failedProjects(t)
	b.says(t, "Last: failed", "1 failed job can be retried.")
	b.looksRight(t, "failed")
	b.press(t, all, "Retry failed")
	b.says(t, "Retry 1 failed job of all job types?")
	b.confirm(t, "Retry 1")
	b.says(t, "All: 1 failed job will be tried again")
	// The attempts of before stay, with why they failed.
	b.hash(t, "#/run/"+id)
	b.says(t, "a retry by hand with key ops at ", "after 3 earlier attempts: see below", "3, before the retry", "no projects today",
		"Attempt 1 of 3 has failed. The next one begins at ")
	b.looksRight(t, "retried")
	b.press(t, "//main", "Remove")
	b.confirm(t, "Remove the job")
	b.says(t, id+" removed")
	b.hash(t, "#/")
	b.complaints() // of the browser, that the page of a job found it no more
	b.press(t, all, "Cancel waiting")
	b.confirm(t, "Cancel them")
	b.says(t, "All: 0 waiting jobs removed")
	b.press(t, all, "Clean up")
	b.do(t, chromedp.SendKeys(`dialog [name=gracePeriodHours]`, "9000"))
	b.confirm(t, "Clean up")
	b.says(t, "GracePeriodHours was 9000; it must be a number from 0 to 8760")
	b.complaints() // of the browser, that the API refused this
	b.confirm(t, "Not now")
	b.press(t, userSync, "Clean up")
	b.do(t, chromedp.SendKeys(`dialog [name=gracePeriodHours]`, "0"))
	b.confirm(t, "Clean up")
	b.says(t, "Old jobs cleaned up (grace period: 0h): removed 3 completed jobs and 0 failed jobs")
	b.dismiss(t)
}

// hidden tells the page that it is hidden, as the browser does when another tab is in front.
func hidden(t *testing.T, _ *system, b *browser, _ *endpoint) {
	const requests = `performance.getEntriesByType("resource").length`
	looks := func() int {
		return evaluate[int](t, b, `new Promise(done => { performance.clearResourceTimings(); setTimeout(() => done(`+requests+`), 3000) })`)
	}
	if n := looks(); n < 4 {
		t.Errorf("a page that is seen has asked %d times in 3 s", n)
	}
	evaluate[bool](t, b, `Object.defineProperty(document, "hidden", {value: true, configurable: true}), true`)
	testbed.Eventually(t, "the last look to end", func() bool { return looks() == 0 })
	evaluate[bool](t, b, `delete document.hidden, document.dispatchEvent(new Event("visibilitychange")), true`)
	testbed.Eventually(t, "the page to look again", func() bool { return evaluate[int](t, b, requests) > 0 })
}

func apiRestarts(t *testing.T, s *system, b *browser, work *endpoint) {
	work.delay.Store(int64(2 * watched))
	b.sync(t)
	b.says(t, "User sync active")
	s.api.Stop(procs.StopGrace)
	b.says(t, "The API does not answer, since", "What you see is from before.", "User sync active")
	b.press(t, userSync, "Pause")
	b.says(t, "The API does not answer\n")
	s.api = s.run(procs.API)
	b.says(t, "The API answers again, after")
	if strings.Contains(b.text(), "What you see is from before.") {
		t.Error("the page says that the API is away after it came back")
	}
	work.delay.Store(0)
	b.says(t, "User sync idle", "Last: completed")
	b.dismiss(t)
	b.complaints() // of the browser, that the API was away
}

func workerKilled(t *testing.T, s *system, b *browser, work *endpoint) {
	work.delay.Store(int64(watched))
	b.sync(t)
	b.says(t, "User sync active", "(range ")
	holder := s.holder(t)
	lost := fmt.Sprintf(":%d:", holder.PID())
	s.killed[holder] = true
	holder.Kill()
	b.looksRight(t, "killed")
	work.delay.Store(0)
	b.saysWithin(t, rescueLimit, "Its worker is lost. It is put back in at most", "; then it waits its turn.")
	b.saysWithin(t, rescueLimit, "User sync idle", "Last: completed", fmt.Sprintf("%d records, 1 error", userCount))
	if strings.Contains(b.text(), lost) {
		t.Error("the page lists a worker that is dead")
	}
	// The page of the run says afterwards what happened, from the jobs and then from the history.
	b.do(t, chromedp.Click(userSync+`//p[contains(., "Last:")]/a`))
	b.says(t, "Lost workers", "the run", "Attempts")
	testbed.Eventually(t, "the lost worker on the page of the run", func() bool {
		section := evaluate[string](t, b, `document.querySelector('[aria-label="Lost workers"]')?.innerText ?? ""`)
		return strings.Contains(section, lost) && strings.Contains(section, "the run") && !strings.Contains(section, "(unknown)")
	})
	b.says(t, "Ranges: 6")
	b.looksRight(t, "rescued")
	b.hash(t, "#/")
	b.dismiss(t)
}

// failedProjects triggers the project sync, which its endpoint refuses, and returns its ID once it has failed.
func (s *system) failedProjects(t *testing.T) string {
	t.Helper()
	var answer struct{ Data struct{ JobID string } }
	if err := s.ask(http.MethodPost, "/jobs/trigger/project-sync", `{"syncType": "full"}`, &answer); err != nil {
		t.Fatal(err)
	}
	s.reaches(t, answer.Data.JobID, "failed")
	return answer.Data.JobID
}

// holder returns the worker that has the active run of the user sync, not only ranges of it.
func (s *system) holder(t *testing.T) (holder *procs.Process) {
	t.Helper()
	testbed.Eventually(t, "a worker to have the run", func() bool {
		var answer struct {
			Data struct {
				Processes []struct {
					ID    string
					Doing []struct{ Range *int }
				}
			}
		}
		if s.ask(http.MethodGet, "/processes", "", &answer) != nil {
			return false
		}
		for _, p := range answer.Data.Processes {
			for _, d := range p.Doing {
				i := slices.IndexFunc(s.workers, func(w *procs.Process) bool { return strings.Contains(p.ID, fmt.Sprintf(":%d:", w.PID())) })
				if d.Range == nil && i >= 0 {
					holder = s.workers[i]
				}
			}
		}
		return holder != nil
	})
	return holder
}

const fortnight = 14 * 24 * time.Hour

// twoWeeks looks at the history of two weeks with a bad night.
func twoWeeks(t *testing.T, s *system, b *browser, _ *endpoint) {
	today := time.Now().Truncate(24 * time.Hour)
	night := today.AddDate(0, 0, -4).Add(time.Hour) // the night's first hour, which lasts five
	s.remember(t, func(at time.Time, e *jobs.Entry) {
		if at.Before(night) || at.After(night.Add(5*time.Hour)) {
			return
		}
		e.State, e.Error, e.Attempt = jobs.StateFailed, "counting the users to sync, tried for 1m0s: server selection timeout", 3
		e.Counts = &jobs.RecordCounts{Processed: 4200, Updated: 3900, Failed: 300}
		e.At = e.Started.Add(9 * time.Minute)
	})
	b.hash(t, "#/history?job=user-sync")
	b.says(t, "Look again", "Duration, at most 9 min", "Errors, at most", "16 failed", "jobs in 14 d: ")
	b.looksRight(t, "history")
	b.do(t, chromedp.EmulateViewport(usualWidth, 800))
	b.picture(t, "console-history.png")
	bad := evaluate[[]string](t, b, `[...document.querySelectorAll("a.column.failed")].map(a => a.ariaLabel + " " + a.tabIndex)`)
	if len(bad) < 2 || len(bad) > 8 || !strings.Contains(bad[0], " failed, 0 cancelled; the longest 9 min; ") {
		t.Errorf("the chart marks %q", bad)
	}

	// What a person types stays while the page goes on, and a search finds it.
	b.do(t, chromedp.SendKeys(`input[name=text]`, "selection TIMEOUT"))
	requests := evaluate[int](t, b, `new Promise(done => { performance.clearResourceTimings(); setTimeout(() => done(performance.getEntriesByType("resource").length), 2500) })`)
	if requests > 0 {
		t.Errorf("the history was asked for %d times without a reason", requests)
	}
	b.do(t, chromedp.Click(`//form//button[.="Search"]`))
	b.says(t, "16 jobs in")
	if hash := evaluate[string](t, b, `location.hash`); hash != "#/history?job=user-sync&text=selection+TIMEOUT" {
		t.Errorf("the search is at %s", hash)
	}
	b.do(t, chromedp.SetValue(`select[name=state]`, "completed"), chromedp.Click(`//form//button[.="Search"]`))
	b.says(t, "Nothing fits.")
	b.hash(t, "#/history?kind=pause")
	b.says(t, "pause", "key ops")
	b.hash(t, "#/history")
	b.says(t, "Older")
	b.do(t, chromedp.Click(`//a[.="Older"]`))
	testbed.Eventually(t, "the next page", func() bool {
		return evaluate[string](t, b, `new URLSearchParams(location.hash.split("?")[1]).get("cursor") ?? ""`) != "" &&
			evaluate[float64](t, b, `Date.now() - Date.parse(document.querySelector("tbody time").dateTime)`) > float64(6*time.Hour.Milliseconds())
	})
	b.hash(t, "#/history?from=never")
	b.says(t, "From was")
	b.hash(t, "#/")
	b.complaints() // of the browser, that the API refused the last query
}

// remember puts two weeks of runs into the history.
func (s *system) remember(t *testing.T, change func(time.Time, *jobs.Entry)) {
	t.Helper()
	client, err := mongodb.Connect(s.uri, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	store := history.NewStore(history.Options{Client: client, Database: s.database, Collection: "job_runs", Keep: 90 * 24 * time.Hour, BulkSize: 50})
	var entries []jobs.Entry
	for at, end := time.Now().Add(-fortnight).Truncate(20*time.Minute), time.Now().Add(-time.Hour); at.Before(end); at = at.Add(20 * time.Minute) {
		n := int64(len(entries))
		took := time.Duration(90+(n*37)%60) * time.Second
		e := jobs.Entry{
			ID: tasks.TickID("user-sync", at).String(), Kind: jobs.EntryRun, Job: "user-sync", At: at.Add(took), By: jobs.Trigger{Kind: jobs.TriggeredByTick},
			State: jobs.StateCompleted, Started: at, Attempt: 1, Attempts: 3,
			Counts: &jobs.RecordCounts{Processed: 9000 + n%7*250, Updated: 9000 + n%7*250},
		}
		if n%29 == 0 {
			e.Counts.Failed = 3
		}
		change(at, &e)
		entries = append(entries, e)
	}
	for some := range slices.Chunk(entries, 50) { // the embedded server needs small commands
		if lost, err := store.Put(t.Context(), some); err != nil || len(lost) > 0 {
			t.Fatalf("storing a history: %v, lost %v", err, lost)
		}
	}
}

// readOnly opens the console of an API with TLS and a base path, with a key that may only read.
func readOnly(t *testing.T, s *system, b *browser, _ *endpoint) {
	files := accesstest.NewFiles(t, "127.0.0.1")
	port := testbed.FreePort(t)
	api := s.run(procs.API, "PORT="+port, "BASE_PATH=/codex", "TLS_CERT_FILE="+files.Cert, "TLS_KEY_FILE="+files.Key)
	address := "https://127.0.0.1:" + port
	testbed.Eventually(t, "the API with TLS", func() bool { return len(api.Log().Find(procs.Match{Msg: "API ready"})) > 0 })
	b.do(t, chromedp.Navigate(asUser(address+"/codex", readKey)))
	b.says(t, "User sync idle", "Key guest, which may only read", "waits for a job")
	if n := evaluate[int](t, b, `document.querySelectorAll("main button").length`); n > 0 {
		t.Errorf("with a read key there are %d buttons", n)
	}
	b.do(t, chromedp.Click(`//nav//a[.="History"]`))
	b.says(t, "Older", "Duration, at most 9 min")
	b.looksRight(t, "read-only")
	if problems := b.complaints(); len(problems) > 0 {
		t.Errorf("the browser complained: %q", problems)
	}
	b.do(t, chromedp.Click(`//nav//a[.="Queues"]`))
	b.says(t, "Queue Size")
	b.complaints() // of asynqmon's manifest, which the browser asks for without the key
}
