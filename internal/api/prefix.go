// Where clients see the API: behind a proxy its pages can be below a path, such as /codex. A proxy passes that path on, or
// strips it; the API serves both. Its links, redirects and commands begin with it.

package api

import (
	"bytes"
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// prefixHeader is how a proxy tells which path it has stripped.
const prefixHeader = "X-Forwarded-Prefix"

// prefixKey is the key of a request's prefix in its context.
type prefixKey struct{}

// prefixOf returns the path below which the client sees the API, such as "/codex"; "" for none.
func prefixOf(r *http.Request) string {
	prefix, _ := r.Context().Value(prefixKey{}).(string)
	return prefix
}

// belowPrefix returns the request with the path that the router knows, and with its prefix: what a trusted proxy says, or else
// BasePath.
func (s *Server) belowPrefix(r *http.Request) (*http.Request, *refusal) {
	prefix := s.BasePath
	if said := strings.Join(r.Header.Values(prefixHeader), ", "); said != "" && s.trusted(r) {
		prefix = said
		if !access.ValidPrefix(prefix) {
			return r, &refusal{status: http.StatusBadRequest, message: prefixHeader + " was " + tasks.Describe(said) +
				"; it must be one path such as /codex, of letters, digits and . _ ~ -, without a slash at its end"}
		}
	}
	if prefix == "" {
		return r, nil
	}
	r = r.WithContext(context.WithValue(r.Context(), prefixKey{}, prefix))
	for _, passedOn := range []string{prefix, s.BasePath} {
		rest, ok := strings.CutPrefix(r.URL.Path, passedOn)
		if !ok || passedOn == "" || rest != "" && rest[0] != '/' {
			continue
		}
		inner := *r.URL
		inner.Path, inner.RawPath = rest, ""
		if rest == "" {
			inner.Path = "/"
		}
		if escaped, ok := strings.CutPrefix(r.URL.RawPath, passedOn); ok {
			inner.RawPath = escaped
		}
		r.URL = &inner
		break
	}
	return r, nil
}

// trusted reports whether a request comes from a proxy whose X-Forwarded headers count.
func (s *Server) trusted(r *http.Request) bool { return s.isProxy(remoteAddr(r)) }

func (s *Server) isProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(s.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// remoteAddr returns the address that a request comes from; the zero Addr where it has none.
func remoteAddr(r *http.Request) netip.Addr {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	return remote.Addr().Unmap().WithZone("")
}

// dashboardPage is asynqmon's index page. It has the dashboard's path in its links and scripts.
type dashboardPage struct{ html []byte }

func newDashboardPage(dashboard http.Handler) dashboardPage {
	var page recorder
	dashboard.ServeHTTP(&page, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: DashboardPath + "/"}})
	return dashboardPage{page.Bytes()}
}

// dashboardRoot finds the dashboard's path at the beginning of an attribute, or of a text in a script, which has \/ for /.
var dashboardRoot = regexp.MustCompile(`"\\?/` + strings.TrimPrefix(DashboardPath, "/"))

// below returns the page for clients who see the API below a prefix. A prefix has no characters that HTML or scripts escape.
func (p dashboardPage) below(prefix string) []byte {
	return dashboardRoot.ReplaceAllFunc(p.html, func(root []byte) []byte { return append([]byte(`"`+prefix), root[1:]...) })
}

// serveDashboard lets asynqmon answer. Behind a prefix its page, and its redirects, get the prefix.
func (s *Server) serveDashboard(w http.ResponseWriter, r *http.Request) {
	prefix := prefixOf(r)
	if prefix == "" || isDashboardAPI(r.URL.Path) {
		s.dashboard.ServeHTTP(w, r)
		return
	}
	answer := &recorder{header: make(http.Header)}
	s.dashboard.ServeHTTP(answer, r)
	body := answer.Bytes()
	if bytes.Equal(body, s.dashboardPage.html) {
		body = s.dashboardPage.below(prefix)
		w.Header().Set("Content-Security-Policy", dashboardPolicy(body))
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	if to := w.Header().Get("Location"); strings.HasPrefix(to, "/") {
		w.Header().Set("Location", prefix+to)
	}
	if answer.status != 0 {
		w.WriteHeader(answer.status)
	}
	_, _ = w.Write(body) // the client may have left
}

// isDashboardAPI reports whether a path is of the dashboard's API, not of its page and files.
func isDashboardAPI(path string) bool { return strings.HasPrefix(path, DashboardPath+"/api/") }
