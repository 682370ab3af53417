// The description of the API, for programs: an OpenAPI document, written by hand and held true by the tests, which
// compare every request and every answer with it.

package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/pkg/tasks"
)

// The paths of what describes the API: for programs, for people, and its job types.
const (
	jobTypesPath = "/job-types"
	openAPIPath  = "/openapi.json"
	docsPath     = "/docs"
)

//go:embed openapi.json
var openAPITemplate []byte

// openAPI returns the description of an API over the registry: with its job types in the place of "$JOB_TYPES", and the
// one that is meant where a request names none in that of "$FIRST_JOB_TYPE".
func openAPI(registry *tasks.Registry) []byte {
	var names [][]byte
	for _, name := range registry.Names() {
		text, _ := json.Marshal(name) // a string, which cannot fail
		names = append(names, text)
	}
	document := bytes.ReplaceAll(openAPITemplate, []byte(`"$JOB_TYPES"`), bytes.Join(names, []byte(", ")))
	return bytes.ReplaceAll(document, []byte(`"$FIRST_JOB_TYPE"`), names[0])
}

func (s *Server) serveOpenAPI(c *gin.Context) {
	c.Data(http.StatusOK, "application/json; charset=utf-8", s.openAPI)
}
