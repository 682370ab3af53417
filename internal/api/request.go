// What every request gets: an ID that the log has too, a logger with that ID, a limit for its body, and the headers that make
// browsers careful with its answer.

package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/jobs"

	"github.com/codex-api/codex-jobs/internal/access"
)

// requestIDHeader carries a request's ID in both directions.
const requestIDHeader = "X-Request-Id"

// saneID is an ID that can be logged and sent back as it is.
var saneID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// requestKey is the key of a request's API key in its context.
type requestKey struct{}

// keyOf returns the API key that a request was sent with. Without one it has no name.
func keyOf(c *gin.Context) access.Key {
	key, _ := c.Request.Context().Value(requestKey{}).(access.Key)
	return key
}

// keyName returns the name of the API key that a request was sent with; "" without one.
func keyName(c *gin.Context) string { return keyOf(c).Name }

// triggeredBy returns who sent a request, as the record of a run and the history name them.
func triggeredBy(c *gin.Context) jobs.Trigger {
	if key := keyName(c); key != "" {
		return jobs.Trigger{Kind: jobs.TriggeredByKey, Key: key}
	}
	return jobs.Trigger{Kind: jobs.TriggeredByAPI}
}

// requestLog is the key of a request's logger in its context.
type requestLog struct{}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	id := r.Header.Get(requestIDHeader)
	if !saneID.MatchString(id) {
		id = rand.Text()
	}
	w.Header().Set(requestIDHeader, id)
	r, refused := s.belowPrefix(r)
	s.secure(w.Header(), r)
	log := s.Log.With("requestId", id)
	var key access.Key
	if refused == nil {
		key, refused = s.guard(r)
	}
	if key.Name != "" {
		log = log.With("key", key.Name)
	}
	if refused == nil {
		refused = takeBody(w, r)
	}
	if refused != nil {
		level := slog.LevelDebug // every browser begins without a key
		if refused.status == http.StatusForbidden || r.Header.Get("Authorization") != "" {
			level = slog.LevelInfo
		}
		s.refusals.line(r.Context(), log, level, "Request refused", "method", cut(r.Method), "path", cut(r.URL.Path), "status", refused.status,
			"from", s.clientAddr(r).String())
		refuse(w, *refused)
		s.metrics.request(r.Method, routeRefused, refused.status, time.Since(started))
		return
	}
	ctx := context.WithValue(r.Context(), requestLog{}, log)
	r = r.WithContext(context.WithValue(ctx, requestKey{}, key))
	s.router.ServeHTTP(w, r)
}

// takeBody limits the size of a request's body. The body of a request that can change something is read here, so that the
// limit holds for every route, whether it reads the body or not.
func takeBody(w http.ResponseWriter, r *http.Request) *refusal {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if reads(r) {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return &refusal{status: http.StatusRequestEntityTooLarge, message: fmt.Sprintf("the body was too large; it must have at most %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &refusal{status: http.StatusBadRequest, message: "the body could not be read"}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// log returns a request's logger. Its lines have the request's ID and the name of its key.
func (s *Server) log(c *gin.Context) *slog.Logger {
	if log, ok := c.Request.Context().Value(requestLog{}).(*slog.Logger); ok {
		return log
	}
	return s.Log
}

// secure sets the headers that restrict what browsers do with an answer.
func (s *Server) secure(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if strings.HasPrefix(r.URL.Path+"/", DashboardPath+"/") && !isDashboardAPI(r.URL.Path+"/") {
		h.Set("Content-Security-Policy", s.dashboardPolicy)
	} else {
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Cache-Control", "no-store")
	}
}
