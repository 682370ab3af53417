package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/tasks"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// listProcesses tells which workers and schedulers live. The dashboard does not: an idle worker runs no asynq Server.
func (s *Server) listProcesses(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), answerTimeout)
	defer cancel()
	processes, err := s.processes(ctx)
	if err != nil {
		s.unavailable(c, err)
		return
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: client.ProcessList{Processes: processes}})
}

func (s *Server) processes(ctx context.Context) ([]client.Process, error) {
	live, err := s.Jobs.Processes(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]client.Process, len(live))
	for i, p := range live {
		list[i] = client.Process{Role: string(p.Role), ID: p.ID, LastSeen: client.Time{Time: p.Seen}, Version: p.Version, Doing: newDoing(p.Doing)}
		if p.Started > 0 {
			list[i].StartedAt = client.Time{Time: time.UnixMilli(p.Started)}
		}
	}
	return list, nil
}

// newDoing returns what a worker does, by the IDs of its tasks.
func newDoing(ids []string) (list []client.Doing) {
	for _, id := range ids {
		if r, err := tasks.ParseRangeID(id); err == nil {
			list = append(list, client.Doing{Job: r.Run.String(), Range: &r.Index})
		} else {
			list = append(list, client.Doing{Job: id})
		}
	}
	return list
}
