package api

import (
	"net/http"
	"regexp"
	"strings"
)

// OpenAPI is for the tests that compare requests and answers with the description.
var OpenAPI = openAPI

var ginParameter = regexp.MustCompile(`:(\w+)`)

// DescribableRoutes lists the router's routes as the description has them, such as "get /jobs/{id}": without HEAD, which
// comes with GET, and without those of the dashboard.
func (s *Server) DescribableRoutes() []string {
	var list []string
	for _, r := range s.router.Routes() {
		if r.Method != http.MethodHead && !strings.HasPrefix(r.Path, DashboardPath) {
			list = append(list, strings.ToLower(r.Method)+" "+ginParameter.ReplaceAllString(r.Path, "{$1}"))
		}
	}
	return list
}
