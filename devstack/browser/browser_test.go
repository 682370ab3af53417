//go:build browser

package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/codex-api/codex-jobs/internal/testbed"
)

// A person's way through the pages, one after another.
func TestBrowser(t *testing.T) {
	s := start(t, 1)
	proxy := stripping(t, s, "/codex") // it outlives its page: the browser asks for an icon when it likes
	b := open(t)
	t.Run("the API's own pages", func(t *testing.T) { ownPages(t, s, b) })
	t.Run("a completed run", func(t *testing.T) { completedRun(t, s, b) })
	t.Run("an active run", func(t *testing.T) { activeRun(t, s, b) })
	t.Run("the next tick", func(t *testing.T) { nextTick(t, s, b) })
	t.Run("behind a proxy, below a path", func(t *testing.T) { belowAPath(t, proxy, b) })
	t.Run("pause and resume", func(t *testing.T) { pauseAndResume(t, s, b) })
	if problems := b.complaints(); len(problems) > 0 {
		t.Errorf("on the dashboard the browser complained: %q", problems)
	}
}

func ownPages(t *testing.T, s *system, b *browser) {
	b.do(t, chromedp.Navigate(s.url+"/"))
	b.says(t, "codex-jobs", "User sync", "Workers and schedulers")
	b.do(t, chromedp.Click(`a[href="/docs"]`))
	b.says(t, "codex-jobs API", "curl -X POST '"+s.url+"/jobs/trigger/user-sync'", "the server has keys")
	b.fits(t)
	b.picture(t, "docs.png")
	b.do(t, chromedp.Click(`nav a[href="#cancelJob"]`))
	if problems := b.complaints(); len(problems) > 0 {
		t.Errorf("the browser complained: %q", problems)
	}
}

// stripping starts a proxy before the API that strips a path, and tells the API so. It returns the URL of the API behind it.
func stripping(t *testing.T, s *system, path string) string {
	t.Helper()
	api, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.StripPrefix(path, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(api)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("X-Forwarded-Prefix", path)
	}}))
	t.Cleanup(proxy.Close)
	return proxy.URL + path
}

// belowAPath looks at the pages at a URL that has a path.
func belowAPath(t *testing.T, at string, b *browser) {
	b.do(t, chromedp.Navigate(at+"/"))
	b.do(t, chromedp.Click(`a[href="/codex/docs"]`))
	b.says(t, "curl -X POST '"+at+"/jobs/trigger/user-sync'")
	b.do(t, chromedp.Click(`a.home`))
	b.says(t, "User sync", "Next tick in")
	b.do(t, chromedp.Click(`a[href="/codex/dashboard"]`))
	b.says(t, "Queue Size")
	b.do(t, chromedp.Click(queues+` a[href$="/queues/user-sync"]`))
	b.says(t, "Active ", "Completed ")
	b.do(t, chromedp.Reload())
	b.says(t, "Active ", "Completed ")
	if problems := b.complaints(); len(problems) > 0 {
		t.Errorf("the browser complained: %q", problems)
	}
}

func completedRun(t *testing.T, s *system, b *browser) {
	id := s.trigger(t)
	s.reaches(t, id, "completed")
	b.do(t, chromedp.Navigate(s.url+"/dashboard/queues/user-sync?status=completed"))
	processed := fmt.Sprintf(`"usersProcessed": %d`, userCount)
	b.says(t, shown(id), processed)
	b.do(t, chromedp.Navigate(s.url+"/dashboard/queues/user-sync/tasks/"+id))
	b.says(t, id, "completed", `"syncType": "full"`, processed, `"errors": 0`)
}

func activeRun(t *testing.T, s *system, b *browser) {
	s.mongodb.Delay(slowness)
	defer s.mongodb.Delay(0)
	id := s.trigger(t)
	s.reaches(t, id, "active")
	b.do(t, chromedp.Navigate(s.url+"/dashboard"))
	b.says(t, "Queue Size")
	b.do(t, chromedp.Click(queues+` a[href$="/queues/user-sync"]`))
	b.says(t, "Active 1", shown(id), "Running")
	time.Sleep(time.Second) // until the animation has ended
	b.picture(t, "dashboard.png")
	b.do(t, chromedp.Click(fmt.Sprintf(`//tbody//*[self::td or self::th][contains(., %q)]`, shown(id))))
	b.says(t, id, "active", `"syncType": "full"`)
}

// inTime matches the text with which the dashboard shows a time to come.
var inTime = regexp.MustCompile(`\bin ((?:\d+h)?(?:\d+m)?\d+s)\b`)

func nextTick(t *testing.T, s *system, b *browser) {
	b.do(t, chromedp.Navigate(s.url+"/dashboard/schedulers"))
	b.says(t, "*/20 * * * *", "user-sync", `"syncType": "incremental"`)
	testbed.Eventually(t, "the page and the API to name the same tick", func() bool {
		found := inTime.FindStringSubmatch(b.text())
		if found == nil { // "now"
			return false
		}
		until, err := time.ParseDuration(found[1])
		var status struct {
			Data struct{ RepeatableJobs []struct{ Next int64 } }
		}
		if err != nil || s.ask(http.MethodGet, "/jobs/status", "", &status) != nil || len(status.Data.RepeatableJobs) != 1 {
			return false
		}
		apart := time.Until(time.UnixMilli(status.Data.RepeatableJobs[0].Next)) - until
		return apart.Abs() < 10*time.Second // the page asks every few seconds
	})
}

const (
	// queues is the dashboard's table of the queues, and actions the cell of the user sync in which buttons appear under the mouse.
	queues  = `table[aria-label="queues overview table"]`
	actions = queues + ` tbody tr:has(a[href$="/queues/user-sync"]) td:last-child`
)

func pauseAndResume(t *testing.T, s *system, b *browser) {
	b.do(t, chromedp.Navigate(s.url+"/dashboard"))
	b.says(t, "user-sync", "run")
	for _, step := range []struct {
		paused bool
		state  string
	}{{true, "paused"}, {false, "run"}} {
		b.hover(t, actions)
		b.do(t, chromedp.Click(actions+" button")) // the first is that one
		testbed.Eventually(t, "the API to agree with the dashboard", func() bool { return s.paused(t) == step.paused })
		b.says(t, "user-sync\t"+step.state)
	}
}

// hover moves the mouse over the first element of a selector.
func (b *browser) hover(t *testing.T, selector string) {
	t.Helper()
	b.do(t, chromedp.WaitVisible(selector), chromedp.ScrollIntoView(selector))
	box, err := chromedp.Run(b.ctx, chromedp.Dimensions(selector))
	if err != nil {
		t.Fatalf("looking where %s is: %v", selector, err)
	}
	x, y := (box.Content[0]+box.Content[4])/2, (box.Content[1]+box.Content[5])/2
	b.do(t, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1), chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, x, y))
}

// fits checks that a page needs no horizontal scrolling, even in a narrow window.
func (b *browser) fits(t *testing.T) {
	t.Helper()
	for _, width := range []int64{390, 768, 1400, usualWidth} {
		b.do(t, chromedp.EmulateViewport(width, usualHeight))
		needed, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64]("document.documentElement.scrollWidth"))
		if err != nil || needed > width {
			t.Errorf("in a window of %d pixels the page takes %d, %v", width, needed, err)
		}
	}
}
