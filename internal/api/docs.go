// The description of the API, for people: a page that the server makes of the document. It loads nothing from elsewhere, has
// no script, and cannot differ from the document.

package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// docs is the part of the page that is the same for all readers.
type docs struct {
	*document
	Groups []group
}

// group is the operations with one tag.
type group struct {
	Name, Description string
	Entries           []*entry
}

// entry is one operation as it is shown.
type entry struct {
	operation
	Method, Path string
	// Ours is true for what the API serves, and false for what a worker sends to the URL of a team's service.
	Ours bool
	Rows []row // of the parameters
}

// row is a line of a table: a parameter or a field.
type row struct {
	Name, In    string
	Required    bool
	Words       string
	Refs        []string
	List        bool
	Null        bool // it can be null instead
	Default     string
	Description string
}

func newDocs(openAPI []byte) (*docs, error) {
	parsed, err := parseDocument(openAPI)
	if err != nil {
		return nil, err
	}
	d := &docs{document: parsed}
	for _, tag := range d.Tags {
		g := group{Name: tag.Name, Description: tag.Description}
		for _, path := range d.Paths {
			g.Entries = append(g.Entries, d.entries(tag.Name, path.Name, true, path.Value)...)
		}
		for _, hook := range d.Webhooks {
			g.Entries = append(g.Entries, d.entries(tag.Name, "your URL", false, hook.Value)...)
		}
		d.Groups = append(d.Groups, g)
	}
	return d, nil
}

// entries returns those of a path's methods that have the tag.
func (d *docs) entries(tag, path string, ours bool, methods ordered[operation]) []*entry {
	var list []*entry
	for _, method := range methods {
		if !slices.Contains(method.Value.Tags, tag) {
			continue
		}
		e := &entry{operation: method.Value, Method: strings.ToUpper(method.Name), Path: path, Ours: ours}
		for _, p := range e.Parameters {
			r := d.row(p.Name, p.Required, p.Schema)
			r.Description = p.Description
			if ours { // the others are all headers
				r.In = p.In
			}
			e.Rows = append(e.Rows, r)
		}
		list = append(list, e)
	}
	return list
}

// row describes a value.
func (d *docs) row(name string, required bool, s *schema) row {
	r := row{Name: name, Required: required, Words: s.words(), Description: s.Description}
	if s.Default != nil {
		r.Default = literal(s.Default)
	}
	r.Refs, r.List = s.refs()
	r.Null = slices.ContainsFunc(s.AnyOf, func(one *schema) bool { return one.Type == "null" })
	if s.Items != nil || len(s.AnyOf) > 0 { // the names of the others say it
		r.Words = ""
	}
	if s.Ref != "" {
		named := d.resolve(s)
		if len(named.Enum) > 0 || named.Minimum != nil {
			r.Words = named.words()
		}
		r.Description = cmp.Or(r.Description, named.Description)
	}
	if s.Items != nil && len(r.Refs) == 0 {
		r.Words = s.Items.words()
	}
	return r
}

// Row describes a schema by itself.
func (d *docs) Row(s *schema) row { return d.row("", false, s) }

// Fields returns the fields of an object. Those of an object within it have both names.
func (d *docs) Fields(s *schema) []row {
	var rows []row
	for _, p := range s.Properties {
		rows = append(rows, d.row(p.Name, slices.Contains(s.Required, p.Name), p.Value))
		if p.Value.Ref != "" {
			continue
		}
		for _, inner := range d.Fields(p.Value) {
			inner.Name = p.Name + "." + inner.Name
			rows = append(rows, inner)
		}
	}
	return rows
}

// Bodies returns the schemas of which a request's body must be one; none when it has no body.
func (d *docs) Bodies(e *entry) []*schema {
	if e.RequestBody == nil {
		return nil
	}
	s := d.resolve(e.RequestBody.Content[0].Value.Schema)
	if len(s.AnyOf) == 0 {
		return []*schema{s}
	}
	var list []*schema
	for _, one := range s.AnyOf {
		list = append(list, d.resolve(one))
	}
	return list
}

func (d *docs) resolve(s *schema) *schema {
	if s.Ref == "" {
		return s
	}
	return d.Components.Schemas.get(refName(s.Ref))
}

// asked is the page for one request.
type asked struct {
	*docs
	// Base is the API's URL as the client knows it, and Prefix the path in it; neither has a slash at its end.
	Base, Prefix string
	// Keys is true where the request came with a key, so that the commands need one too.
	Keys bool
}

// Curl returns a command that sends such a request, with the values of its examples.
func (a asked) Curl(e *entry) string {
	path, query := e.Path, url.Values{}
	for _, p := range e.Parameters {
		if p.In == "path" {
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(fmt.Sprint(p.Example)))
		} else {
			query.Set(p.Name, fmt.Sprint(p.Example))
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	command := "curl"
	if e.Method != http.MethodGet {
		command += " -X " + e.Method
	}
	command += " '" + a.Base + path + "'"
	if a.Keys && e.Security == nil {
		command += " \\\n  -H \"Authorization: Bearer $API_KEY\""
	}
	if e.RequestBody != nil {
		if examples := e.RequestBody.Content[0].Value.Examples; len(examples) > 0 {
			var body bytes.Buffer
			_ = json.Compact(&body, examples[0].Value.Value) // it came from JSON
			command += " \\\n  -H 'Content-Type: application/json' -d '" + body.String() + "'"
		}
	}
	return command
}

// plainHost is a Host without characters that are special to a shell.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]+$`)

// base returns the API's URL as a client knows it.
func base(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	if !plainHost.MatchString(host) {
		host = "localhost"
	}
	return scheme + "://" + host + prefixOf(r)
}

func (s *Server) serveDocs(c *gin.Context) {
	s.servePage(c, "docs.html", asked{
		docs: s.docs, Base: base(c.Request), Prefix: prefixOf(c.Request), Keys: c.GetHeader("Authorization") != "",
	})
}

// prose returns text of the document as HTML; backticks enclose code.
func prose(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String())
}

// pretty returns JSON with line breaks; of a JSON string, the text.
func pretty(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}
