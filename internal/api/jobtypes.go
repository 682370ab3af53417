package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// listJobTypes tells clients which job types there are, so that they need not know them beforehand: codexctl has a row for
// each in its status, completes their names, and shows what a trigger's body must be.
func (s *Server) listJobTypes(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	schedules, err := s.Jobs.Schedules(ctx, time.Now())
	if err != nil {
		s.unavailable(c, err)
		return
	}
	specs := make(map[string]*string)
	for _, schedule := range schedules {
		specs[schedule.Job] = &schedule.Spec
	}
	list := client.JobTypeList{JobTypes: []client.JobType{}}
	for _, def := range s.Jobs.Registry().All() {
		paused, err := s.Jobs.IsPaused(ctx, def)
		if err != nil {
			s.unavailable(c, err)
			return
		}
		list.JobTypes = append(list.JobTypes, client.JobType{
			Name: def.Name, Title: def.Title, Schedule: specs[def.Name], Paused: paused, Attempts: def.Attempts, Overall: def.Overall, Fields: fieldsOf(def),
		})
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: list})
}

func fieldsOf(def tasks.Definition) []client.Field {
	list := []client.Field{}
	for _, f := range def.Fields() {
		list = append(list, client.Field{
			Name: f.Name, Type: f.Type, Allowed: f.Allowed, Required: f.Required, Options: f.Options, Default: f.Default,
		})
	}
	return list
}
