package api

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/jobs"
	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

func (s *Server) status(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	definitions, ok := s.queryJobs(c, s.Jobs.Registry().Names()[0])
	if !ok {
		return
	}
	status, err := s.Jobs.Status(ctx, definitions...)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	body := client.Status{
		RepeatableJobs: []client.RepeatableJob{},
		Counts:         client.Counts(status.Counts),
		Paused:         status.Paused,
		ActiveJobs:     []client.ActiveJob{},
	}
	for _, r := range status.Repeatable {
		body.RepeatableJobs = append(body.RepeatableJobs, client.RepeatableJob{
			Name: "__default__", Key: r.Job + ":" + r.Spec, Every: millisOrNull(r.Every), Next: r.Next.UnixMilli(),
		})
	}
	for _, a := range status.Active {
		body.ActiveJobs = append(body.ActiveJobs, client.ActiveJob{ID: a.ID, Data: a.Data, Progress: a.Progress})
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: body})
}

func (s *Server) trigger(c *gin.Context) {
	def, ok := s.lookup(c, http.StatusNotFound, "the job", c.Param("job"))
	if !ok {
		return
	}
	var payload tasks.Payload
	var at time.Time
	if !decodeBodyWith(c, func(data []byte) (err error) {
		payload, at, err = def.DecodeTrigger(data, time.Now())
		return err
	}) {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	accepted, err := s.Jobs.TriggerAt(ctx, def, payload, at, triggeredBy(c))
	if err != nil {
		s.unavailable(c, err)
		return
	}
	s.metrics.trigger(def.Name, accepted.Coalesced).Inc()
	traceJob(c, def.Name, accepted.ID.String())
	what := def.Title
	if sync, ok := payload.(*tasks.SyncPayload); ok {
		what += " (" + sync.SyncType + ")"
	}
	triggered := client.Triggered{
		JobID: accepted.ID.String(), Coalesced: accepted.Coalesced, RunAt: client.Time{Time: accepted.RunAt},
	}
	log := s.log(c)
	if !accepted.RunAt.IsZero() {
		log = log.With("runAt", accepted.RunAt)
	}
	log.Info("Job triggered", "job", def.Name, "jobId", triggered.JobID, "coalesced", accepted.Coalesced)
	c.JSON(http.StatusOK, client.Answer{
		Success: true, Message: what + " triggered successfully", Timestamp: now(), Data: triggered,
	})
}

// controlBody is the body of a request to pause or to resume.
type controlBody struct {
	Job string `json:"job" allowed:"the name of a job type"`
}

func (s *Server) pause(c *gin.Context)  { s.control(c, "paused", s.Jobs.Pause) }
func (s *Server) resume(c *gin.Context) { s.control(c, "resumed", s.Jobs.Resume) }

func (s *Server) control(c *gin.Context, done string, do func(context.Context, tasks.Definition, jobs.Trigger) error) {
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
	if err := do(ctx, def, triggeredBy(c)); err != nil {
		s.unavailable(c, err)
		return
	}
	s.log(c).Info(def.Title+" jobs "+done, "job", def.Name)
	c.JSON(http.StatusOK, client.Answer{Success: true, Message: def.Title + " jobs " + done})
}

const (
	defaultGraceHours = 24
	maxGraceHours     = 8760
)

type cleanupBody struct {
	Job   string   `json:"job" allowed:"the name of a job type"`
	Hours *float64 `json:"gracePeriodHours" allowed:"a number from 0 to 8760"`
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
	removed, err := s.Long.Cleanup(ctx, def, time.Now().Add(-time.Duration(hours*float64(time.Hour))), triggeredBy(c))
	if err != nil {
		s.unavailable(c, err)
		return
	}
	grace := strconv.FormatFloat(math.Abs(hours), 'f', -1, 64) + "h" // JSON has a negative zero
	s.log(c).Info("Old jobs cleaned up", "job", def.Name, "gracePeriod", grace, "completed", removed.Completed, "failed", removed.Failed)
	c.JSON(http.StatusOK, client.Answer{
		Success: true, Message: "Old jobs cleaned up (grace period: " + grace + ")",
		Data: client.CleanedUp{Completed: removed.Completed, Failed: removed.Failed},
	})
}

// now is the timestamp of an answer.
func now() client.Time { return client.Time{Time: time.Now()} }
