package api

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// allJobs is what the query parameter job may be besides the name of a job type.
const allJobs = "all"

type repeatableJob struct {
	Name string `json:"name"`
	// Key begins with the job type's name.
	Key string `json:"key"`
	// Every is in milliseconds; null for a cron expression whose ticks are not evenly spaced.
	Every *int64 `json:"every"`
	// Next is in milliseconds since the epoch.
	Next int64 `json:"next"`
}

type counts struct {
	Active    int `json:"active"`
	Waiting   int `json:"waiting"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Delayed   int `json:"delayed"`
}

type activeJob struct {
	ID       string          `json:"id"`
	Data     json.RawMessage `json:"data"`
	Progress int             `json:"progress"`
}

type jobsStatus struct {
	RepeatableJobs []repeatableJob `json:"repeatableJobs"`
	Counts         counts          `json:"counts"`
	Paused         bool            `json:"paused"`
	ActiveJobs     []activeJob     `json:"activeJobs"`
}

func (s *Server) status(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	definitions := s.Jobs.Registry().All()
	if name := c.DefaultQuery("job", definitions[0].Name); name != allJobs {
		def, ok := s.Jobs.Registry().Lookup(name)
		if !ok {
			err := &tasks.FieldError{Field: "job", Was: tasks.Describe(name), Allowed: quoted(append(s.Jobs.Registry().Names(), allJobs))}
			fail(c, http.StatusBadRequest, err.Error())
			return
		}
		definitions = []tasks.Definition{def}
	}
	status, err := s.Jobs.Status(ctx, definitions...)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	body := jobsStatus{
		RepeatableJobs: []repeatableJob{},
		Counts:         counts(status.Counts),
		Paused:         status.Paused,
		ActiveJobs:     []activeJob{},
	}
	for _, r := range status.Repeatable {
		body.RepeatableJobs = append(body.RepeatableJobs, repeatableJob{
			Name: "__default__", Key: r.Job + ":" + r.Spec, Every: millisOrNull(r.Every), Next: r.Next.UnixMilli(),
		})
	}
	for _, a := range status.Active {
		body.ActiveJobs = append(body.ActiveJobs, activeJob{ID: a.ID, Data: a.Data, Progress: a.Progress})
	}
	c.JSON(http.StatusOK, answer{Success: true, Data: body})
}

type triggered struct {
	JobID string `json:"jobId"`
	// Coalesced is true when that run waited already.
	Coalesced bool `json:"coalesced"`
}

func (s *Server) trigger(c *gin.Context) {
	def, ok := s.lookup(c, http.StatusNotFound, "the job", c.Param("job"))
	if !ok {
		return
	}
	payload := def.NewPayload()
	if !decodeBody(c, payload) {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	accepted, err := s.Jobs.Trigger(ctx, def, payload)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	s.metrics.trigger(def.Name, accepted.Coalesced).Inc()
	traceJob(c, def.Name, accepted.ID.String())
	what := def.Title
	if kind := payload.Kind(); kind != "" {
		what += " (" + kind + ")"
	}
	s.log(c).Info("Job triggered", "job", def.Name, "jobId", accepted.ID.String(), "coalesced", accepted.Coalesced)
	c.JSON(http.StatusOK, answer{
		Success: true, Message: what + " triggered successfully", Timestamp: timestamp(),
		Data: triggered{accepted.ID.String(), accepted.Coalesced},
	})
}

// controlBody is the body of the requests that pause and resume.
type controlBody struct {
	Job string `json:"job" allowed:"the name of a job type"`
}

func (s *Server) pause(c *gin.Context)  { s.control(c, "paused", s.Jobs.Pause) }
func (s *Server) resume(c *gin.Context) { s.control(c, "resumed", s.Jobs.Resume) }

func (s *Server) control(c *gin.Context, done string, do func(context.Context, tasks.Definition) error) {
	body := controlBody{Job: s.Jobs.Registry().Names()[0]}
	if !decodeBody(c, &body) {
		return
	}
	def, ok := s.lookup(c, http.StatusBadRequest, "job", body.Job)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	if err := do(ctx, def); err != nil {
		s.unavailable(c, err)
		return
	}
	s.log(c).Info(def.Title+" jobs "+done, "job", def.Name)
	c.JSON(http.StatusOK, answer{Success: true, Message: def.Title + " jobs " + done})
}

const (
	defaultGraceHours = 24
	maxGraceHours     = 8760
)

type cleanupBody struct {
	Job   string   `json:"job" allowed:"the name of a job type"`
	Hours *float64 `json:"gracePeriodHours" allowed:"a number from 0 to 8760"`
}

// cleanedUp is how many runs of each outcome were removed.
type cleanedUp struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

func (s *Server) cleanup(c *gin.Context) {
	body := cleanupBody{Job: s.Jobs.Registry().Names()[0]}
	if !decodeBody(c, &body) {
		return
	}
	hours := float64(defaultGraceHours)
	if body.Hours != nil {
		hours = *body.Hours
	}
	if hours < 0 || hours > maxGraceHours {
		fail(c, http.StatusBadRequest, tasks.NewFieldError(&body, "gracePeriodHours", hours).Error())
		return
	}
	def, ok := s.lookup(c, http.StatusBadRequest, "job", body.Job)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), cleanupTimeout)
	defer cancel()
	removed, err := s.Jobs.Cleanup(ctx, def, time.Now().Add(-time.Duration(hours*float64(time.Hour))))
	if err != nil {
		s.unavailable(c, err)
		return
	}
	grace := strconv.FormatFloat(math.Abs(hours), 'f', -1, 64) + "h" // JSON has a negative zero
	s.log(c).Info("Old jobs cleaned up", "job", def.Name, "gracePeriod", grace, "completed", removed.Completed, "failed", removed.Failed)
	c.JSON(http.StatusOK, answer{
		Success: true, Message: "Old jobs cleaned up (grace period: " + grace + ")",
		Data: cleanedUp{removed.Completed, removed.Failed},
	})
}
