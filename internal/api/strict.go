// The API's own routes refuse what they do not understand: a client that misspells a parameter, or sends one twice, must not
// get the answer to another question. Pages and probes ignore it, because load balancers and links add parameters of their own.

package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

// strict returns the handlers of a route whose query can have the parameters, each once.
func (s *Server) strict(handler gin.HandlerFunc, parameters ...string) []gin.HandlerFunc {
	return []gin.HandlerFunc{func(c *gin.Context) {
		if id, given := c.Params.Get("id"); given {
			if _, err := tasks.ParseRunID(id); err != nil {
				s.nothingThere(c)
				return
			}
		}
		err := checkQuery(c.Request.URL.RawQuery, parameters)
		if err == nil && reads(c.Request) {
			err = checkNoBody(c.Request)
		}
		if err != nil {
			fail(c, http.StatusBadRequest, err.Error())
		}
	}, handler}
}

func checkQuery(query string, parameters []string) error {
	values, err := url.ParseQuery(query)
	var escape url.EscapeError
	switch {
	case errors.As(err, &escape):
		return fmt.Errorf("the query had %s in it; it must be a percent sign and two hexadecimal digits, and %%25 for the sign itself", tasks.Describe(string(escape)))
	case err != nil: // a semicolon, or too many parameters
		return fmt.Errorf("the query was %s; its parameters must be separated by &", tasks.Describe(query))
	}
	allowed := "left out: there are no parameters here"
	if len(parameters) > 0 {
		allowed = quoted(parameters)
	}
	for name, given := range values {
		switch {
		case !slices.Contains(parameters, name):
			return &tasks.FieldError{Field: "the parameter " + tasks.Describe(name), Was: "not known", Allowed: allowed}
		case len(given) > 1:
			return &tasks.FieldError{Field: "the parameter " + tasks.Describe(name), Was: fmt.Sprintf("given %d times", len(given)), Allowed: "given once"}
		}
	}
	return nil
}

// checkNoBody refuses a body where only a query is read.
func checkNoBody(r *http.Request) error {
	data, err := io.ReadAll(r.Body)
	tooLarge := new(http.MaxBytesError)
	switch {
	case err != nil && !errors.As(err, &tooLarge):
		return errors.New("the body could not be read")
	case strings.TrimSpace(string(data)) != "":
		return fmt.Errorf("%s had a body; it must have none, its parameters are in the query", r.Method)
	}
	return nil
}
