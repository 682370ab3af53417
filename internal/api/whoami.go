package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/pkg/client"
)

// whoami tells a client what it may do, so that a page need not offer what would be refused.
func (s *Server) whoami(c *gin.Context) {
	key := keyOf(c)
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: client.Identity{Key: key.Name, Write: key.Write || len(s.Keys) == 0}})
}
