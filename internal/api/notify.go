package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/notify"
	"github.com/codex-api/codex-jobs/pkg/client"
)

// testNotification sends a test to the receiver of notifications, and answers with what that has answered.
func (s *Server) testNotification(c *gin.Context) {
	if !decodeBody(c, &struct{}{}) {
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), notifyTimeout)
	defer cancel()
	outcome, err := notify.Test(ctx, s.Jobs, s.notifications)
	if errors.Is(err, notify.ErrNobody) {
		fail(c, http.StatusConflict, "no worker notifies; start the workers with NOTIFY_URL")
		return
	}
	if err != nil {
		s.unavailable(c, err)
		return
	}
	tested := client.NotifyTest{ID: outcome.ID, Delivered: outcome.Status > 0, Status: outcome.Status, Error: outcome.Reason}
	message := fmt.Sprintf("The receiver answered %d %s", outcome.Status, http.StatusText(outcome.Status))
	if !tested.Delivered {
		message = "The test was not delivered: " + outcome.Reason
	}
	s.log(c).Info("Notification tested", "notification", tested.ID, "delivered", tested.Delivered, "status", tested.Status, "reason", tested.Error)
	c.JSON(http.StatusOK, client.Answer{Success: true, Message: message, Data: tested})
}
