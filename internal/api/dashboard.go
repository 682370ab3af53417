// The dashboard is asynqmon's, whose page needs more of a browser than the answers of the API do.

package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
)

// inlineScript is a script that stands in the page itself.
var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// recorder is a ResponseWriter that keeps an answer.
type recorder struct {
	bytes.Buffer
	header http.Header
	status int // 0 for none
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// dashboardPolicy says what the dashboard's page may load: its own files, the scripts that stand in it, by their hashes,
// and the fonts that it asks for. Its library makes styles as it goes.
func dashboardPolicy(page []byte) string {
	scripts := "'self'"
	for _, script := range inlineScript.FindAllSubmatch(page, -1) {
		hash := sha256.Sum256(script[1])
		scripts += " 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
	}
	return strings.Join([]string{
		"default-src 'none'", "script-src " + scripts, "style-src 'self' 'unsafe-inline' https://fonts.googleapis.com",
		"font-src 'self' https://fonts.gstatic.com", "img-src 'self' data:", "connect-src 'self'", "manifest-src 'self'",
		"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'",
	}, "; ")
}
