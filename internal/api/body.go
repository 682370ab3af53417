package api

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// decodeBody decodes a request's JSON body into v, strictly (see tasks.Decode). Where the body is wrong, it answers with the
// reason and returns false.
func decodeBody(c *gin.Context, v any) bool {
	return decodeBodyWith(c, func(data []byte) error { return tasks.Decode(data, v) })
}

// decodeBodyWith is decodeBody with another decoder.
func decodeBodyWith(c *gin.Context, decode func(data []byte) error) bool {
	data, err := io.ReadAll(c.Request.Body)
	if err != nil {
		fail(c, http.StatusBadRequest, "the body could not be read")
		return false
	}
	if len(data) > 0 {
		if problem := checkBodyHeaders(c.Request.Header); problem != "" {
			fail(c, http.StatusUnsupportedMediaType, problem)
			return false
		}
	}
	if err := decode(data); err != nil {
		fail(c, http.StatusBadRequest, err.Error())
		return false
	}
	return true
}

// checkBodyHeaders returns what is wrong with the headers that say how a body is to be read, "" for nothing.
func checkBodyHeaders(h http.Header) string {
	if encoding := strings.Join(h.Values("Content-Encoding"), ", "); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Sprintf("Content-Encoding was %s; it must be left out, and the body not compressed", tasks.Describe(encoding))
	}
	sent := strings.Join(h.Values("Content-Type"), ", ")
	mediaType, parameters, err := mime.ParseMediaType(sent)
	charset, given := parameters["charset"]
	if err != nil || mediaType != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return fmt.Sprintf("Content-Type was %s; it must be \"application/json\"", tasks.Describe(sent))
	}
	return ""
}
