// Makes docs/api.md of the API's description, for those who read the documentation without a server.

package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/codex-api/codex-jobs/internal/codex"
)

//go:generate go test -run ^TestReference$ . -update

var update = flag.Bool("update", false, "write docs/api.md anew")

const referencePath = "../../docs/api.md"

// reference is what the template gets.
type reference struct {
	*docs
	// Shared are the responses that operations share, with their status codes.
	Shared map[string]response
}

// Curl returns a command for a server on this machine.
func (r reference) Curl(e *entry) string {
	return asked{docs: r.docs, Base: "http://localhost:4000"}.Curl(e)
}

// Errors lists the status codes of an operation's answers that are in the table of errors.
func (r reference) Errors(e *entry) string {
	var list []string
	for _, response := range e.Responses {
		if response.Value.Ref != "" {
			list = append(list, response.Name)
		}
	}
	return strings.Join(list, ", ")
}

// Own is the description of the row itself, without the schema that it refers to.
func (r reference) Own(line row) string {
	for _, name := range line.Refs {
		if r.Components.Schemas.get(name).Description == line.Description {
			return ""
		}
	}
	return line.Description
}

// references returns the links to the schemas that a row refers to, and the words that stand beside them.
func references(r row) string {
	var links []string
	for _, ref := range r.Refs {
		links = append(links, "["+ref+"](#"+strings.ToLower(ref)+")")
	}
	if r.Null {
		links = append(links, "null")
	}
	text := strings.Join(links, " or ")
	if text != "" && r.Words != "" {
		text += ": "
	}
	text += r.Words
	if r.List {
		text = "list of " + text
	}
	return text
}

// example returns a short example in one line.
func example(raw json.RawMessage) string {
	if len(raw) > 120 || raw[0] == '"' {
		return strings.TrimRight(pretty(raw), "\n")
	}
	return string(raw)
}

func compact(raw json.RawMessage) (string, error) {
	var b bytes.Buffer
	err := json.Compact(&b, raw)
	return b.String(), err
}

// message returns the message in the example of an error.
func message(raw json.RawMessage) (string, error) {
	var e struct{ Message string }
	err := json.Unmarshal(raw, &e)
	return e.Message, err
}

func TestReference(t *testing.T) {
	t.Parallel()
	d, err := newDocs(openAPI(codex.Registry()))
	if err != nil {
		t.Fatal(err)
	}
	r := reference{docs: d, Shared: make(map[string]response)}
	for _, path := range d.Paths {
		for _, method := range path.Value {
			for _, response := range method.Value.Responses {
				if response.Value.Ref != "" {
					r.Shared[response.Name+" "+response.Value.Ref] = response.Value
				}
			}
		}
	}
	page := template.Must(template.New("api.md.tmpl").Funcs(template.FuncMap{
		"example": example, "compact": compact, "message": message, "references": references, "own": r.Own,
		"anchor":  func(heading string) string { return strings.ToLower(strings.ReplaceAll(heading, " ", "-")) },
		"keys":    func(m map[string]response) []string { return slices.Sorted(maps.Keys(m)) },
		"isBody":  func(schema string) bool { return strings.HasSuffix(schema, "Body") }, // they are where they are sent
		"refName": refName,
		"status":  func(key string) string { return key[:3] },
		"cell":    func(text string) string { return strings.ReplaceAll(text, "|", `\|`) },
	}).ParseFiles("testdata/api.md.tmpl"))
	var got bytes.Buffer
	if err := page.Execute(&got, r); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(referencePath, got.Bytes(), 0o644); err != nil { //nolint:gosec // a document, for all to read
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(referencePath); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("docs/api.md does not fit the API's description (%v): go generate ./internal/api", err)
	}
}
