package api

import (
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// decodeBody decodes a request's JSON body into v, strictly (see tasks.Decode). Where the body is wrong, it answers with the
// reason and returns false.
func decodeBody(c *gin.Context, v any) bool {
	data, err := io.ReadAll(c.Request.Body)
	if err != nil {
		fail(c, http.StatusBadRequest, "the body could not be read")
		return false
	}
	if len(data) > 0 {
		sent := c.GetHeader("Content-Type")
		if mediaType, _, err := mime.ParseMediaType(sent); err != nil || mediaType != "application/json" {
			fail(c, http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type was %q; it must be \"application/json\"", sent))
			return false
		}
	}
	if err := tasks.Decode(data, v); err != nil {
		fail(c, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}
