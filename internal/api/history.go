// The routes of the history: the runs that have ended, and what people did. It is in MongoDB, so it outlives what Redis has.

package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/history"
	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

const (
	historyPath = "/history"
	// maxHistoryText is the longest text that the history is searched for, in bytes.
	maxHistoryText = 200
	// maxHistoryID is longer than the ID of any entry, in bytes.
	maxHistoryID = 500
)

func newHistoryEntry(e jobs.Entry) client.HistoryEntry {
	shown := client.HistoryEntry{
		ID: e.ID, Kind: e.Kind, Job: e.Job, At: client.Time{Time: e.At}, State: client.State(e.State), Data: e.Data,
		StartedAt: client.Time{Time: e.Started}, Attempt: e.Attempt, Attempts: e.Attempts, Error: e.Error,
		By: newTriggeredBy(e.By), EndedAttempts: newEndedAttempts(e.EndedAttempts), Rescues: newRescues(e.Rescues),
		Counts: (*client.RecordCounts)(e.Counts), Result: e.Result,
		RangesTotal: e.RangesTotal, TraceID: e.TraceID, Target: e.Target,
	}
	if !e.Started.IsZero() {
		duration := max(0, e.At.Sub(e.Started).Milliseconds())
		shown.Duration = &duration
	}
	for _, r := range e.FailedRecords {
		shown.FailedRecords = append(shown.FailedRecords, client.FailedRecord(r))
	}
	for _, r := range e.Ranges {
		shown.Ranges = append(shown.Ranges, client.EndedRange{
			Index: r.Index, Worker: r.Worker, StartedAt: client.Time{Time: r.Started}, EndedAt: client.Time{Time: r.Ended},
			Outcome: string(r.Outcome), Counts: (*client.RecordCounts)(r.Counts), Error: r.Error,
		})
	}
	if e.Removed != nil {
		shown.Removed = &client.RemovedJobs{Completed: e.Removed.Completed, Failed: e.Removed.Failed}
	}
	return shown
}

func (s *Server) listHistory(c *gin.Context) {
	if s.History == nil {
		noHistory(c)
		return
	}
	filter := history.Filter{Limit: defaultPageSize}
	definitions, ok := s.queryJobs(c, client.AllJobs)
	if !ok {
		return
	}
	if len(definitions) == 1 && c.Query("job") == definitions[0].Name { // with "all" those of job types that are gone, too
		filter.Job = definitions[0].Name
	}
	var state string
	if !queryOneOf(c, "state", texts(history.States()), &state) || !queryOneOf(c, "kind", history.Kinds(), &filter.Kind) ||
		!queryTime(c, "from", &filter.From) || !queryTime(c, "to", &filter.To) || !queryNumber(c, "limit", maxPageSize, &filter.Limit) {
		return
	}
	filter.State = jobs.State(state)
	if text, given := c.GetQuery("text"); given {
		if text == "" || len(text) > maxHistoryText || strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
			allowed := fmt.Sprintf("1 to %d bytes of text in UTF-8, without control characters", maxHistoryText)
			fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: "text", Was: tasks.Describe(text), Allowed: allowed}).Error())
			return
		}
		filter.Text = text
	}
	if text, given := c.GetQuery("cursor"); given {
		var err error
		if filter.After, err = history.ParseCursor(text); err != nil {
			fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: "cursor", Was: tasks.Describe(text), Allowed: "the \"next\" of a page before"}).Error())
			return
		}
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	entries, next, err := s.History.List(ctx, filter)
	if err != nil {
		s.historyUnavailable(c, err)
		return
	}
	page := client.HistoryPage{Entries: []client.HistoryEntry{}, Next: next.String()}
	for _, e := range entries {
		page.Entries = append(page.Entries, newHistoryEntry(e))
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: page})
}

func (s *Server) showHistory(c *gin.Context) {
	if s.History == nil {
		noHistory(c)
		return
	}
	id := c.Param("entry")
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	e, err := jobs.Entry{}, history.ErrNoEntry
	if utf8.ValidString(id) && len(id) <= maxHistoryID {
		e, err = s.History.Get(ctx, id)
	}
	switch {
	case errors.Is(err, history.ErrNoEntry):
		fail(c, http.StatusNotFound, fmt.Sprintf("there is no entry %s in the history; see GET %s. A run gets there a moment after its end", tasks.Describe(id), historyPath))
	case err != nil:
		s.historyUnavailable(c, err)
	default:
		c.JSON(http.StatusOK, client.Answer{Success: true, Data: newHistoryEntry(e)})
	}
}

// noHistory answers where no history is kept.
func noHistory(c *gin.Context) {
	fail(c, http.StatusNotFound, "there is no history: it is switched off with HISTORY_KEEP=off")
}

// historyUnavailable answers a request that failed in package history, which fails only when MongoDB does not serve, or when the
// client has gone away.
func (s *Server) historyUnavailable(c *gin.Context, err error) {
	if c.Request.Context().Err() != nil {
		s.log(c).Debug("The client did not wait for the answer", "path", cut(c.Request.URL.Path), "error", err)
		c.AbortWithStatus(statusClientGone)
		return
	}
	s.outages.line(c.Request.Context(), s.log(c), slog.LevelWarn, "MongoDB did not serve a request", "path", cut(c.Request.URL.Path), "error", err)
	message := "MongoDB is not available; try again later"
	if right := (&history.RightError{}); errors.As(err, &right) {
		message = fmt.Sprintf("the user of MongoDB lacks the right %q for the history; try again once it is granted", right.Action)
	}
	fail(c, http.StatusServiceUnavailable, message)
}

// queryOneOf reads a query parameter, which must be one of the values. Where it is wrong, it answers with the reason and returns
// false.
func queryOneOf(c *gin.Context, name string, allowed []string, target *string) bool {
	text, given := c.GetQuery(name)
	if !given {
		return true
	}
	for _, value := range allowed {
		if text == value {
			*target = text
			return true
		}
	}
	fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: name, Was: tasks.Describe(text), Allowed: quoted(allowed)}).Error())
	return false
}

// queryTime reads a query parameter, which must be an instant. Where it is wrong, it answers with the reason and returns false.
func queryTime(c *gin.Context, name string, target *time.Time) bool {
	text, given := c.GetQuery(name)
	if !given {
		return true
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		allowed := "an instant in RFC 3339 from 1970 on, such as 2026-11-24T04:50:00Z"
		fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: name, Was: tasks.Describe(text), Allowed: allowed}).Error())
		return false
	}
	*target = at
	return true
}

func texts[T ~string](values []T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}
