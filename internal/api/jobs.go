package api

import (
	"context"
	"fmt"
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
	def, ok := s.lookup(c, c.Param("job"))
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

// controlBody is the body of a request that changes the jobs of a job type, or of all.
type controlBody struct {
	Job string `json:"job" allowed:"the name of a job type, or all"`
}

func (s *Server) pause(c *gin.Context)  { s.control(c, "paused", s.Jobs.Pause) }
func (s *Server) resume(c *gin.Context) { s.control(c, "resumed", s.Jobs.Resume) }

func (s *Server) control(c *gin.Context, done string, do func(context.Context, tasks.Definition, jobs.Trigger) error) {
	body := controlBody{Job: s.Jobs.Registry().Names()[0]}
	if !decodeBody(c, &body) {
		return
	}
	chosen, ok := s.choose(c, body.Job)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	by := triggeredBy(c)
	for _, def := range chosen {
		if err := do(ctx, def, by); err != nil {
			s.unavailable(c, err)
			return
		}
	}
	message := titleOf(body.Job, chosen) + " jobs " + done
	s.log(c).Info(message, "job", body.Job)
	c.JSON(http.StatusOK, client.Answer{Success: true, Message: message})
}

// titleOf is what messages call the job types that were chosen by the name.
func titleOf(name string, chosen []tasks.Definition) string {
	if name == client.AllJobs {
		return "All"
	}
	return chosen[0].Title
}

func (s *Server) retryFailed(c *gin.Context) {
	key := keyName(c)
	s.changeInBulk(c, "failed", "will be tried again", func(ctx context.Context, def tasks.Definition) (jobs.Bulk, error) {
		return s.Long.RetryFailed(ctx, def, key)
	}, func(done jobs.Bulk) any {
		return client.Retried{Retried: done.Changed, Left: done.Left}
	})
}

func (s *Server) cancelWaiting(c *gin.Context) {
	by := triggeredBy(c)
	s.changeInBulk(c, "waiting", "removed", func(ctx context.Context, def tasks.Definition) (jobs.Bulk, error) {
		return s.Long.CancelWaiting(ctx, def, by)
	}, func(done jobs.Bulk) any {
		return client.Removed{Removed: done.Changed, Left: done.Left}
	})
}

// changeInBulk changes the jobs in a state, of the job type in the body or of all.
func (s *Server) changeInBulk(c *gin.Context, state, outcome string, change func(context.Context, tasks.Definition) (jobs.Bulk, error),
	data func(jobs.Bulk) any,
) {
	body := controlBody{Job: s.Jobs.Registry().Names()[0]}
	if !decodeBody(c, &body) {
		return
	}
	chosen, ok := s.choose(c, body.Job)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), bulkTimeout)
	defer cancel()
	var done jobs.Bulk
	for _, def := range chosen {
		part, err := change(ctx, def)
		done.Add(part)
		if err != nil {
			s.unavailableAfter(c, countJobs(done.Changed, state)+" "+outcome, err)
			return
		}
	}
	message := fmt.Sprintf("%s: %s %s", titleOf(body.Job, chosen), countJobs(done.Changed, state), outcome)
	if done.Left > 0 {
		message += fmt.Sprintf("; the time was up for %d more, so repeat the request", done.Left)
	}
	s.log(c).Info("Several jobs changed", "job", body.Job, "state", state, "changed", done.Changed, "left", done.Left)
	c.JSON(http.StatusOK, client.Answer{Success: true, Message: message, Data: data(done)})
}

// countJobs returns a number of jobs in a state in words.
func countJobs(n int, state string) string {
	if n == 1 {
		return "1 " + state + " job"
	}
	return fmt.Sprintf("%d %s jobs", n, state)
}

const (
	defaultGraceHours = 24
	maxGraceHours     = 8760
)

type cleanupBody struct {
	Job   string   `json:"job" allowed:"the name of a job type, or all"`
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
	chosen, ok := s.choose(c, body.Job)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), cleanupTimeout)
	defer cancel()
	before, by := time.Now().Add(-time.Duration(hours*float64(time.Hour))), triggeredBy(c)
	var removed jobs.Removed
	for _, def := range chosen {
		part, err := s.Long.Cleanup(ctx, def, before, by)
		removed.Completed += part.Completed
		removed.Failed += part.Failed
		if err != nil {
			s.unavailable(c, err)
			return
		}
	}
	grace := strconv.FormatFloat(math.Abs(hours), 'f', -1, 64) + "h" // JSON has a negative zero
	s.log(c).Info("Old jobs cleaned up", "job", body.Job, "gracePeriod", grace, "completed", removed.Completed, "failed", removed.Failed)
	c.JSON(http.StatusOK, client.Answer{
		Success: true, Message: "Old jobs cleaned up (grace period: " + grace + ")",
		Data: client.CleanedUp{Completed: removed.Completed, Failed: removed.Failed},
	})
}

// now is the timestamp of an answer.
func now() client.Time { return client.Time{Time: time.Now()} }
