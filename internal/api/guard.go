// The gate before all routes: a request that it refuses changes nothing. It stands before the router so that no route can be
// forgotten.

package api

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/codex-api/codex-jobs/internal/access"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// openPaths need no key: they tell load balancers, container engines and monitoring whether the system is healthy.
var openPaths = []string{"/livez", "/readyz", "/health"}

// challenges ask for a key. Basic makes a browser ask for a user and a password; the password is the key. Each is a header line
// of its own, because Chromium understands neither when they share one.
var challenges = []string{`Basic realm="codex-jobs"`, "Bearer"}

// refusal is the answer to a request that the gate refuses.
type refusal struct {
	status  int
	message string
	// retryAfter is how long the client must wait; 0 for a refusal that is none of time.
	retryAfter time.Duration
}

// guard decides whether a request goes on, and returns the key that it was sent with. Without keys the key has no name.
func (s *Server) guard(r *http.Request) (key access.Key, refused *refusal) {
	if err := s.crossOrigin.Check(r); err != nil {
		return key, &refusal{status: http.StatusForbidden, message: "the request came from a page of another site, which may not change anything here"}
	}
	if slices.Contains(openPaths, r.URL.Path) {
		return key, nil
	}
	if len(s.Keys) == 0 {
		if !s.AuthDisabled && !safeHost(r.Host) {
			return key, &refusal{status: http.StatusForbidden, message: "the Host was " + tasks.Describe(r.Host) + "; without API_KEYS it must be an address, " +
				"localhost or a name without a dot, unless AUTH_DISABLED=true"}
		}
		return key, nil
	}
	shown, ok := shownKey(r)
	if !ok {
		return key, &refusal{status: http.StatusUnauthorized, message: "a key is needed: as Authorization: Bearer, or as the password of Basic"}
	}
	if key, ok = s.Keys.Find(shown); !ok {
		if wait := s.wrongKeys.wait(s.clientAddr(r)); wait > 0 {
			return key, &refusal{
				status: http.StatusTooManyRequests, retryAfter: wait,
				message: fmt.Sprintf("there were too many wrong keys from this address; the next one is looked at in %d s", retryAfter(wait)),
			}
		}
		return key, &refusal{status: http.StatusUnauthorized, message: "the key is not known"}
	}
	if !key.Write && !reads(r) {
		return key, &refusal{status: http.StatusForbidden, message: "the key may only read; " + r.Method + " needs a write key"}
	}
	return key, nil
}

// reads reports whether a request changes nothing.
func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// shownKey returns the key in a request.
func shownKey(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(key), strings.EqualFold(scheme, "Bearer")
}

// safeHost reports whether a Host cannot be made to point here from elsewhere. To a browser, a page whose name does point here
// (DNS rebinding) has the same origin.
func safeHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return net.ParseIP(host) != nil || !strings.Contains(host, ".") ||
		strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".internal")
}

// refuse answers with an error, in the form of every error of this API.
func refuse(w http.ResponseWriter, no refusal) {
	if no.status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = challenges
	}
	if no.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(no.retryAfter)))
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(no.status)
	body, _ := json.Marshal(client.Answer{Message: no.message}) // nothing in it can fail
	_, _ = w.Write(body)                                        // the client may have left
}
