//go:build browser

package browser_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// dashboardFonts is the host of the dashboard's fonts, without which it works, too.
const dashboardFonts = "https://fonts.googleapis.com/"

// usualWidth and usualHeight are the size of the window, in pixels.
const usualWidth, usualHeight = 1280, 680

// browser is a Chromium with one page.
type browser struct {
	ctx context.Context
	axe string // the script of axe-core, if the test needs it

	mu       sync.Mutex
	problems []string // since the last call of complaints
}

// open starts a Chromium that resolves no other host than this machine.
func open(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("install Debian's package chromium: %v", err)
	}
	flags := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("disable-lcd-text", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(stop)
	ctx, closePage := chromedp.NewContext(allocator)
	t.Cleanup(closePage)
	b := &browser{ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	b.do(t, chromedp.EmulateViewport(usualWidth, usualHeight))
	return b
}

// listen records the errors of a page.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.problems = append(b.problems, fmt.Sprintf("a script wrote to the console (%s)", e.Type))
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if strings.HasPrefix(e.Entry.URL, dashboardFonts) {
			return
		}
		b.problems = append(b.problems, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
	}
}

// complaints returns the errors since the last call.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	problems := b.problems
	b.problems = nil
	return problems
}

// step is something that the browser does.
type step = chromedp.Action[chromedp.Void]

func (b *browser) do(t *testing.T, steps ...step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, waitLimit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatalf("driving the browser: %v; the page says:\n%s", err, b.text())
	}
}

// text returns the text of the page, or the error of asking for it.
func (b *browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, waitLimit)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return text
}

// says waits until the page has all of the texts.
func (b *browser) says(t *testing.T, texts ...string) {
	t.Helper()
	b.saysWithin(t, waitLimit, texts...)
}

// saysWithin is says with another limit.
func (b *browser) saysWithin(t *testing.T, limit time.Duration, texts ...string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		page := b.text()
		missing := slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return strings.Contains(page, text) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page does not say %q, but:\n%s", missing, page)
		}
	}
}

// picture saves a picture of the page, if SCREENSHOTS is set.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	if !filepath.IsAbs(folder) { // it is relative to the root of the repository
		folder = filepath.Join("..", "..", folder)
	}
	b.do(t, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, 1, 1)) // nothing is under it there
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatalf("taking a picture: %v", err)
	}
	if strings.HasPrefix(name, "views/") { // which are for a look, not for the documentation
		folder = filepath.Join("..", "..", "bin", "browser")
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// shown is how the dashboard's tables show an ID: up to its first hyphen.
func shown(id string) string {
	before, _, _ := strings.Cut(id, "-")
	return before
}
