package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// The routes about single jobs and about schedules. The Bull system had none.

// The page sizes of GET /jobs.
const (
	defaultPageSize = 20
	maxPageSize     = 100
)

func newJob(j jobs.Job) client.Job {
	shown := client.Job{
		ID: j.ID.String(), Job: j.ID.Job, TriggeredBy: newTriggeredBy(j.TriggeredBy), State: client.State(j.State), Data: j.Data, Progress: j.Progress,
		Attempt: j.Attempt, Attempts: j.Attempts, Error: j.Error, Result: j.Result,
		CreatedAt: client.Time{Time: j.Created}, StartedAt: client.Time{Time: j.Started}, EndedAt: client.Time{Time: j.Ended},
		NextAttemptAt: client.Time{Time: j.NextAttempt}, EndedAttempts: newEndedAttempts(j.EndedAttempts), Rescues: newRescues(j.Rescues), Counts: (*client.RecordCounts)(j.Counts),
		Total: j.Total, WorkerLost: j.WorkerLost, RescueWithin: millisOrNull(j.RescueWithin),
	}
	if !j.Started.IsZero() && !j.Ended.IsZero() {
		duration := max(0, j.Ended.Sub(j.Started).Milliseconds())
		shown.Duration = &duration
	}
	if j.Wait != nil {
		waiting := newWaiting(*j.Wait)
		shown.Waiting = &waiting
	}
	if j.Ranges > 0 {
		shown.Ranges = &client.Ranges{Total: j.Ranges, Ended: j.RangesEnded}
	}
	return shown
}

func newEndedAttempts(ended []jobs.EndedAttempt) (shown []client.EndedAttempt) {
	for _, a := range ended {
		shown = append(shown, client.EndedAttempt{
			Number: a.Number, StartedAt: client.Time{Time: a.Started}, EndedAt: client.Time{Time: a.Ended}, Worker: a.Worker,
			Outcome: string(a.Outcome), Error: a.Error,
		})
	}
	return shown
}

// newTriggeredBy returns nil if it is not known.
func newTriggeredBy(by jobs.Trigger) *client.TriggeredBy {
	if by.Kind == "" {
		return nil
	}
	shown := client.TriggeredBy{Kind: by.Kind, Key: by.Key}
	if by.At != 0 {
		shown.At = client.Time{Time: time.UnixMilli(by.At)}
	}
	return &shown
}

func newRescues(rescues []jobs.Rescue) (shown []client.Rescue) {
	for _, r := range rescues {
		shown = append(shown, client.Rescue{At: client.Time{Time: r.At}, Range: r.Range, LostWorker: r.Lost, Worker: r.Worker})
	}
	return shown
}

func newWaiting(w jobs.Wait) client.Waiting {
	return client.Waiting{For: w.For, Since: client.Time{Time: w.Since}, Upstream: w.Upstream, Slow: w.Slow}
}

func (s *Server) listJobs(c *gin.Context) {
	filter := jobs.Filter{States: jobs.States(), Page: 1, PageSize: defaultPageSize}
	var ok bool
	if filter.Jobs, ok = s.queryJobs(c, client.AllJobs); !ok {
		return
	}
	var state string
	if !queryOneOf(c, "state", texts(jobs.States()), &state) {
		return
	}
	if state != "" {
		filter.States = []jobs.State{jobs.State(state)}
	}
	if !queryNumber(c, "page", 1_000_000, &filter.Page) || !queryNumber(c, "pageSize", maxPageSize, &filter.PageSize) {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	from := s.Jobs
	if filter.PageSize > defaultPageSize {
		from = s.Long
	}
	page, total, err := from.List(ctx, filter)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	list := client.JobList{Jobs: []client.Job{}, Total: total, Page: filter.Page, PageSize: filter.PageSize}
	for _, j := range page {
		list.Jobs = append(list.Jobs, newJob(j))
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: list})
}

// queryJobs returns the job types that the parameter job selects: one, or "all". Where it is wrong, it answers with the reason
// and returns false.
func (s *Server) queryJobs(c *gin.Context, byDefault string) ([]tasks.Definition, bool) {
	return s.choose(c, c.DefaultQuery("job", byDefault))
}

// choose returns the job types of a name: one, or those of "all". Where there are none, it answers with the known names and returns
// false.
func (s *Server) choose(c *gin.Context, name string) ([]tasks.Definition, bool) {
	registry := s.Jobs.Registry()
	if name == client.AllJobs {
		return registry.All(), true
	}
	def, ok := registry.Lookup(name)
	if !ok {
		err := &tasks.FieldError{Field: "job", Was: tasks.Describe(name), Allowed: quoted(append(registry.Names(), client.AllJobs))}
		fail(c, http.StatusBadRequest, err.Error())
	}
	return []tasks.Definition{def}, ok
}

// queryNumber reads a query parameter, which must be from 1 to most. Where it is wrong, it answers with the reason and returns
// false.
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
			c.JSON(http.StatusOK, client.Answer{Success: true, Data: newJob(j)})
		}
		return err
	})
}

func (s *Server) cancelJob(c *gin.Context) {
	if !decodeBody(c, &struct{}{}) {
		return
	}
	s.withJob(c, func(ctx context.Context, id tasks.RunID) error {
		removed, err := s.Jobs.Cancel(ctx, id, triggeredBy(c))
		if err != nil {
			return err
		}
		status, message, state := http.StatusAccepted, "is being cancelled", client.StateCancelling
		if removed {
			status, message, state = http.StatusOK, "removed", client.StateRemoved
		}
		s.log(c).Info("Job "+message, "job", id.Job, "jobId", id.String())
		c.JSON(status, client.Answer{Success: true, Message: "Job " + id.String() + " " + message, Data: client.Changed{ID: id.String(), State: state}})
		return nil
	})
}

func (s *Server) retryJob(c *gin.Context) {
	if !decodeBody(c, &struct{}{}) {
		return
	}
	s.withJob(c, func(ctx context.Context, id tasks.RunID) error {
		if err := s.Jobs.Retry(ctx, id, keyName(c)); err != nil {
			return err
		}
		s.log(c).Info("Job will be tried again", "job", id.Job, "jobId", id.String())
		c.JSON(http.StatusOK, client.Answer{
			Success: true, Message: "Job " + id.String() + " will be tried again", Data: client.Changed{ID: id.String(), State: client.StateWaiting},
		})
		return nil
	})
}

// withJob calls do with the ID in the path, which strict has checked, and answers when that fails.
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
		message := fmt.Sprintf("there is no job %s; see GET /jobs", tasks.Describe(text))
		if s.History != nil {
			message += fmt.Sprintf(", and GET %s/%s if it has ended", historyPath, text)
		}
		fail(c, http.StatusNotFound, message)
	case errors.Is(err, jobs.ErrEnded):
		fail(c, http.StatusConflict, fmt.Sprintf("job %s has already ended; POST /jobs/cleanup removes jobs that have ended", text))
	case errors.Is(err, jobs.ErrBusy):
		fail(c, http.StatusConflict, fmt.Sprintf("job %s is changing its state; try again", text))
	case errors.Is(err, jobs.ErrNotFailed):
		fail(c, http.StatusConflict, fmt.Sprintf("job %s has not failed; only a failed job can be retried", text))
	default:
		s.unavailable(c, err)
	}
}

func (s *Server) listSchedules(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	live, err := s.Jobs.ListSchedules(ctx)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	list := client.ScheduleList{Schedules: []client.Schedule{}}
	for _, l := range live {
		shown := client.Schedule{Job: l.Job, Spec: l.Spec, Every: millisOrNull(l.Every), Next: client.Time{Time: l.Next}, Paused: l.Paused}
		if !l.Previous.IsZero() {
			shown.Previous = &client.Time{Time: l.Previous}
		}
		list.Schedules = append(list.Schedules, shown)
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: list})
}

// millisOrNull is nil for 0.
func millisOrNull(d time.Duration) *int64 {
	if d <= 0 {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}
