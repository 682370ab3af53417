package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

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
		list[i] = client.Process{Role: string(p.Role), ID: p.ID, LastSeen: client.Time{Time: p.Seen}}
	}
	return list, nil
}
