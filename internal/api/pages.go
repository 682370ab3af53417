// The API's own pages for browsers: they share a style sheet, have no scripts, and load nothing.

package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/codex-api/codex-jobs/internal/console"
	"github.com/codex-api/codex-jobs/pkg/client"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed pages/style.css
var styleSheet string

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"prose":      prose,
	"pretty":     pretty,
	"paragraphs": func(text string) []string { return strings.Split(text, "\n\n") },
	"lower":      strings.ToLower,
	"refName":    refName,
	"style":      func() template.CSS { return template.CSS(styleSheet) },
}).ParseFS(pageFiles, "pages/*.html"))

// pagePolicy allows a page its own style sheet and nothing else.
var pagePolicy = func() string {
	hash := sha256.Sum256([]byte(styleSheet))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) +
		"'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}()

func (s *Server) servePage(c *gin.Context, name string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		s.log(c).Error("A page could not be made", "page", name, "error", err)
		fail(c, http.StatusInternalServerError, "internal error; the log says more")
		return
	}
	c.Header("Content-Security-Policy", pagePolicy)
	c.Data(http.StatusOK, "text/html; charset=utf-8", page.Bytes())
}

// links are the paths that the root answers with.
type links struct {
	Dashboard string `json:"dashboard"`
	Docs      string `json:"docs"`
	OpenAPI   string `json:"openapi"`
	Health    string `json:"health"`
	Status    string `json:"status"`
	Processes string `json:"processes"`
}

// index answers at the root: browsers get the console, other clients links.
func (s *Server) index(c *gin.Context) {
	at := prefixOf(c.Request)
	there := links{
		Dashboard: at + DashboardPath, Docs: at + docsPath, OpenAPI: at + openAPIPath, Health: at + "/health", Status: at + "/jobs/status",
		Processes: at + processesPath,
	}
	c.Header("Vary", "Accept")
	if strings.Contains(c.GetHeader("Accept"), "text/html") {
		page, err := console.Page(at)
		if err != nil {
			s.log(c).Error("The console could not be made", "error", err)
			fail(c, http.StatusInternalServerError, "internal error; the log says more")
			return
		}
		c.Header("Content-Security-Policy", console.Policy)
		c.Data(http.StatusOK, "text/html; charset=utf-8", page)
		return
	}
	c.JSON(http.StatusOK, client.Answer{Success: true, Data: there})
}
