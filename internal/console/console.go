// Package console is the console: a page for people, with one script and one style sheet. It reads and acts through the public API
// only, as any client could.
package console

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed static
var files embed.FS

var page = template.Must(template.ParseFS(files, "static/index.html"))

// Policy is the Content-Security-Policy of the page: its own script and style sheet, the API, and nothing inline.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// ScriptPath and StylePath are the paths of what the page loads.
const (
	ScriptPath = "/console.js"
	StylePath  = "/console.css"
)

// Page returns the page for a server that clients see below the base path, which is "" or begins with a slash.
func Page(base string) ([]byte, error) {
	var html bytes.Buffer
	err := page.Execute(&html, struct{ Base string }{base})
	return html.Bytes(), err
}

// Serve answers with the script or the style sheet.
func Serve(w http.ResponseWriter, r *http.Request, path string) {
	http.ServeFileFS(w, r, files, "static"+path)
}
