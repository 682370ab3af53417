package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// The routes about single jobs, which the Bull system did not have.

// The page sizes of GET /jobs.
const (
	defaultPageSize = 20
	maxPageSize     = 100
)

// job is a run as the API shows it. Times are ISO 8601 in UTC, and left out where they are not known.
type job struct {
	ID    string          `json:"id"`
	Job   string          `json:"job"`
	State jobs.State      `json:"state"`
	Data  json.RawMessage `json:"data"`
	// Progress is in percent.
	Progress int `json:"progress"`
	// Attempt is the current attempt or the last one, counted from 1; 0 when it has not begun. Attempts is how many it has.
	Attempt     int             `json:"attempt"`
	Attempts    int             `json:"attempts"`
	Error       string          `json:"error,omitempty"`
	Result      json.RawMessage `json:"result,omitempty"`
	Ranges      *ranges         `json:"ranges,omitempty"`
	CreatedAt   string          `json:"createdAt"`
	StartedAt   string          `json:"startedAt,omitempty"`
	EndedAt     string          `json:"endedAt,omitempty"`
	NextAttempt string          `json:"nextAttemptAt,omitempty"`
}

// ranges counts those of a run that is shared.
type ranges struct {
	Total int `json:"total"`
	Ended int `json:"ended"`
}

func newJob(j jobs.Job) job {
	shown := job{
		ID: j.ID.String(), Job: j.ID.Job, State: j.State, Data: j.Data, Progress: j.Progress, Attempt: j.Attempt, Attempts: j.Attempts,
		Error: j.Error, Result: j.Result, CreatedAt: iso(j.Created), StartedAt: iso(j.Started), EndedAt: iso(j.Ended),
		NextAttempt: iso(j.NextAttempt),
	}
	if j.Ranges > 0 {
		shown.Ranges = &ranges{Total: j.Ranges, Ended: j.RangesEnded}
	}
	return shown
}

// iso is "" for a time that is not known.
func iso(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(tasks.TimestampLayout)
}

type jobList struct {
	Jobs     []job `json:"jobs"`
	Total    int   `json:"total"`
	Page     int   `json:"page"`
	PageSize int   `json:"pageSize"`
}

func (s *Server) listJobs(c *gin.Context) {
	filter := jobs.Filter{Jobs: s.Jobs.Registry().All(), States: jobs.States(), Page: 1, PageSize: defaultPageSize}
	if name, given := c.GetQuery("job"); given && name != allJobs {
		def, ok := s.lookup(c, http.StatusBadRequest, "job", name)
		if !ok {
			return
		}
		filter.Jobs = []tasks.Definition{def}
	}
	if state, given := c.GetQuery("state"); given {
		if !slices.Contains(jobs.States(), jobs.State(state)) {
			var names []string
			for _, known := range jobs.States() {
				names = append(names, string(known))
			}
			fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: "state", Was: tasks.Describe(state), Allowed: quoted(names)}).Error())
			return
		}
		filter.States = []jobs.State{jobs.State(state)}
	}
	if !queryNumber(c, "page", 1_000_000, &filter.Page) || !queryNumber(c, "pageSize", maxPageSize, &filter.PageSize) {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	page, total, err := s.Jobs.List(ctx, filter)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	list := jobList{Jobs: []job{}, Total: total, Page: filter.Page, PageSize: filter.PageSize}
	for _, j := range page {
		list.Jobs = append(list.Jobs, newJob(j))
	}
	c.JSON(http.StatusOK, answer{Success: true, Data: list})
}

// queryNumber reads a query parameter that is from 1 to most, where it is given, or answers with what is wrong.
func queryNumber(c *gin.Context, name string, most int, target *int) bool {
	text, given := c.GetQuery(name)
	if !given {
		return true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		allowed := fmt.Sprintf("a whole number from 1 to %d", most)
		fail(c, http.StatusBadRequest, (&tasks.FieldError{Field: name, Was: tasks.Describe(text), Allowed: allowed}).Error())
		return false
	}
	*target = n
	return true
}

func (s *Server) showJob(c *gin.Context) {
	s.withJob(c, func(ctx context.Context, id tasks.RunID) error {
		j, err := s.Jobs.Find(ctx, id)
		if err == nil {
			c.JSON(http.StatusOK, answer{Success: true, Data: newJob(j)})
		}
		return err
	})
}

// changed says what a job is after a change.
type changed struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

func (s *Server) cancelJob(c *gin.Context) {
	s.withJob(c, func(ctx context.Context, id tasks.RunID) error {
		removed, err := s.Jobs.Cancel(ctx, id)
		if err != nil {
			return err
		}
		status, message, state := http.StatusAccepted, "is being cancelled", "cancelling"
		if removed {
			status, message, state = http.StatusOK, "removed", "removed"
		}
		s.log(c).Info("Job "+message, "job", id.Job, "jobId", id.String())
		c.JSON(status, answer{Success: true, Message: "Job " + id.String() + " " + message, Data: changed{id.String(), state}})
		return nil
	})
}

func (s *Server) retryJob(c *gin.Context) {
	if !decodeBody(c, &struct{}{}) {
		return
	}
	s.withJob(c, func(ctx context.Context, id tasks.RunID) error {
		if err := s.Jobs.Retry(ctx, id); err != nil {
			return err
		}
		s.log(c).Info("Job will be tried again", "job", id.Job, "jobId", id.String())
		c.JSON(http.StatusOK, answer{
			Success: true, Message: "Job " + id.String() + " will be tried again", Data: changed{id.String(), string(jobs.StateWaiting)},
		})
		return nil
	})
}

// withJob does something with the job of the path, and answers when that fails.
func (s *Server) withJob(c *gin.Context, do func(context.Context, tasks.RunID) error) {
	text := c.Param("id")
	id, err := tasks.ParseRunID(text)
	if err != nil {
		s.nothingThere(c)
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	err = do(ctx, id)
	switch {
	case err == nil:
	case errors.Is(err, jobs.ErrNoJob):
		fail(c, http.StatusNotFound, fmt.Sprintf("there is no job %s; see GET /jobs", tasks.Describe(text)))
	case errors.Is(err, jobs.ErrEnded):
		fail(c, http.StatusConflict, fmt.Sprintf("job %s has ended; only one that has not can be cancelled, and POST /jobs/cleanup removes those that have", text))
	case errors.Is(err, jobs.ErrNotFailed):
		fail(c, http.StatusConflict, fmt.Sprintf("job %s has not failed; only one that has can be retried", text))
	default:
		s.unavailable(c, err)
	}
}

// schedule is a live schedule.
type schedule struct {
	Job  string `json:"job"`
	Spec string `json:"spec"`
	// Every is in milliseconds; null for a cron expression whose ticks are not evenly spaced.
	Every *int64 `json:"every"`
	Next  string `json:"next"`
	// Previous is the latest tick that was dealt with; null when there was none.
	Previous *string `json:"previous"`
	Paused   bool    `json:"paused"`
}

func (s *Server) listSchedules(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	live, err := s.Jobs.ListSchedules(ctx)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	list := []schedule{}
	for _, l := range live {
		shown := schedule{Job: l.Job, Spec: l.Spec, Every: millisOrNull(l.Every), Next: iso(l.Next), Paused: l.Paused}
		if previous := iso(l.Previous); previous != "" {
			shown.Previous = &previous
		}
		list = append(list, shown)
	}
	c.JSON(http.StatusOK, answer{Success: true, Data: map[string]any{"schedules": list}})
}

// millisOrNull is nil for 0.
func millisOrNull(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}
