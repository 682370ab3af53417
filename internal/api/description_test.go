// Keeps the description of the API true: all requests and answers of this package's tests must agree with it.

package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/codex-api/codex-jobs/internal/api"
)

// object is a JSON object of the description.
type object = map[string]any

// description is the API's OpenAPI document with its schemas compiled.
type description struct {
	root     object
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by their pointers
}

// describedAPI is the description of an API over all job types that are shipped.
var describedAPI = sync.OnceValue(func() *description {
	d, err := newDescription(api.OpenAPI(syncs()))
	if err != nil {
		panic(err)
	}
	return d
})

const documentURL = "http://description/openapi.json"

func newDescription(text []byte) (*description, error) {
	d := &description{compiler: jsonschema.NewCompiler(), schemas: make(map[string]*jsonschema.Schema)}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading the description: %w", err)
	}
	d.root, _ = root.(object)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(documentURL, root); err != nil {
		return nil, fmt.Errorf("reading the description: %w", err)
	}
	return d, nil
}

// at returns the value at a pointer such as "/paths/~1jobs/get", nil when there is none, and the pointer with its references
// resolved.
func (d *description) at(pointer string) (any, string) {
	value, path := any(d.root), ""
	for _, part := range strings.Split(pointer, "/")[1:] {
		path += "/" + part
		switch inside := value.(type) {
		case object:
			value = inside[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(inside) {
				return nil, path
			}
			value = inside[i]
		default:
			return nil, path
		}
		if o, ok := value.(object); ok {
			if ref, ok := o["$ref"].(string); ok {
				value, path = d.at(strings.TrimPrefix(ref, "#"))
			}
		}
	}
	return value, path
}

// pointer joins names to a pointer.
func pointer(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
	}
	return b.String()
}

// check compares a value with the schema that the pointer leads to.
func (d *description) check(at string, value any) error {
	_, at = d.at(at)
	d.mu.Lock()
	defer d.mu.Unlock()
	schema, ok := d.schemas[at]
	if !ok {
		var err error
		if schema, err = d.compiler.Compile(documentURL + "#" + (&url.URL{Fragment: at}).EscapedFragment()); err != nil {
			return fmt.Errorf("compiling the schema at %s: %w", at, err)
		}
		d.schemas[at] = schema
	}
	return schema.Validate(value)
}

// operation returns the pointer of a request's operation in the description, or "" when the path or its method is not
// described.
func (d *description) operation(method, path string) string {
	if method == http.MethodHead { // GET describes it, too
		method = http.MethodGet
	}
	paths, _ := d.root["paths"].(object)
	for _, exact := range []bool{true, false} {
		for template, methods := range paths {
			at := pointer("paths", template, strings.ToLower(method))
			if _, described := methods.(object)[strings.ToLower(method)]; described && (template == path || !exact && d.fits(at, template, path)) {
				return at
			}
		}
	}
	return ""
}

var templateParameter = regexp.MustCompile(`\\\{(\w+)\\\}`)

// fits reports whether a path fits the template, with parameters that fit their schemas.
func (d *description) fits(operation, template, path string) bool {
	pattern := regexp.MustCompile("^" + templateParameter.ReplaceAllString(regexp.QuoteMeta(template), "(?P<$1>[^/]+)") + "$")
	values := pattern.FindStringSubmatch(path)
	if values == nil {
		return false
	}
	for name, at := range d.parameters(operation, "path") {
		if d.check(at+"/schema", values[pattern.SubexpIndex(name)]) != nil {
			return false
		}
	}
	return true
}

// parameters returns the pointers of an operation's parameters by their names.
func (d *description) parameters(operation, in string) map[string]string {
	found := make(map[string]string)
	for i := 0; ; i++ {
		parameter, at := d.at(operation + pointer("parameters", strconv.Itoa(i)))
		if parameter == nil {
			return found
		}
		if p := parameter.(object); p["in"] == in {
			found[p["name"].(string)] = at
		}
	}
}

// exchange is a request and its answer.
type exchange struct {
	method, target, body string
	answer
}

// verify returns an error when an exchange does not agree with the description.
func (d *description) verify(e exchange) error {
	if err := d.mismatch(e); err != nil {
		return fmt.Errorf("not as described: %w; the body %.200q was answered with %d %.1000s", err, e.body, e.status, e.text)
	}
	return nil
}

func (d *description) mismatch(e exchange) error {
	u, err := url.ParseRequestURI(e.target)
	if err != nil {
		return err
	}
	if u.Path == api.DashboardPath || strings.HasPrefix(u.Path, api.DashboardPath+"/") {
		return nil
	}
	if e.status == http.StatusRequestHeaderFieldsTooLarge {
		return nil // net/http's own, before anything of ours
	}
	operation := d.operation(e.method, u.Path)
	if operation == "" {
		return d.undescribed(e)
	}
	response, at := d.at(operation + pointer("responses", strconv.Itoa(e.status)))
	if response == nil {
		return errors.New("the status is not described")
	}
	if e.method != http.MethodHead {
		if err := d.content(at, e); err != nil {
			return err
		}
	}
	return errors.Join(d.query(operation, u.RawQuery, e.body != "", e.status), d.body(operation, e))
}

// undescribed checks that the API does not serve a request that is not described.
func (d *description) undescribed(e exchange) error {
	switch e.status {
	case http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
	case http.StatusMethodNotAllowed:
		if e.header.Get("Allow") == "" {
			return errors.New("the answer does not say which methods are allowed")
		}
	default:
		return errors.New("the path or its method is not described")
	}
	if e.method == http.MethodHead {
		return nil
	}
	return d.json("/components/schemas/Error", e.text)
}

// content compares an answer's body with its description.
func (d *description) content(response string, e exchange) error {
	mediaType, _, err := mime.ParseMediaType(e.header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("reading the Content-Type: %w", err)
	}
	if e.target == "/" && mediaType == "text/html" {
		return nil // the page for browsers: generators of clients stumble over a second content type
	}
	at := response + pointer("content", mediaType)
	if described, _ := d.at(at); described == nil {
		return fmt.Errorf("the Content-Type %s is not described", mediaType)
	}
	if mediaType == "application/json" {
		return d.json(at+"/schema", e.text)
	}
	return d.check(at+"/schema", e.text)
}

func (d *description) json(schema, text string) error {
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return fmt.Errorf("reading JSON: %w", err)
	}
	return d.check(schema, value)
}

// lenient finds the operations that ignore queries: pages and probes.
var lenient = regexp.MustCompile(`^/paths/~1(docs|openapi.json|health|livez|readyz|metrics)?/`)

// query compares a query with its description: it must agree if and only if the API accepted it. Sent is
// whether there was a body, which can be what was wrong.
func (d *description) query(operation, raw string, sent bool, status int) error {
	described := d.parameters(operation, "query")
	var problems []error
	if lenient.MatchString(operation) {
		return nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		problems = append(problems, err)
	}
	for name, values := range query {
		if len(values) > 1 {
			problems = append(problems, fmt.Errorf("the parameter %s is there %d times", name, len(values)))
		}
		at, known := described[name]
		if !known {
			problems = append(problems, fmt.Errorf("the parameter %s is not described", name))
			continue
		}
		for _, text := range values {
			value := any(text)
			if schema, _ := d.at(at + "/schema"); schema.(object)["type"] == "integer" {
				if number, err := strconv.Atoi(text); err == nil {
					value = number
				}
			}
			if err := d.check(at+"/schema", value); err != nil {
				problems = append(problems, err)
			}
		}
	}
	body, _ := d.at(operation + "/requestBody")
	switch {
	case status < 300:
		return errors.Join(problems...)
	case status == http.StatusBadRequest && !sent && body == nil && len(problems) == 0:
		return errors.New("a query that is as described was refused")
	}
	return nil
}

// body compares a request's body with its description: an accepted one must agree, and a refused one must not, as far as a
// schema can tell.
func (d *description) body(operation string, e exchange) error {
	described, _ := d.at(operation + "/requestBody")
	empty := strings.TrimSpace(e.body) == ""
	if described == nil || empty {
		if !empty && e.status < 300 && e.method != http.MethodGet && e.method != http.MethodHead { // they have no body
			return errors.New("no body is described")
		}
		if described != nil && e.status == http.StatusBadRequest && !strings.Contains(e.target, "?") {
			return errors.New("a request without a body was refused for its body")
		}
		return nil
	}
	var value any
	err := json.Unmarshal([]byte(e.body), &value)
	if err == nil {
		err = d.check(operation+"/requestBody"+pointer("content", "application/json", "schema"), value)
	}
	switch {
	case e.status < 300 && err != nil:
		return fmt.Errorf("the body was taken: %w", err)
	case e.status == http.StatusBadRequest && err == nil && !beyondSchemas(value):
		return errors.New("a body that is as described was refused")
	}
	return nil
}

// beyondSchemas reports whether no schema can tell all that a body must be: how far ahead an instant can be, and that it cannot
// be beside a delay, which generators of clients do not understand.
func beyondSchemas(body any) bool {
	fields, _ := body.(object)
	return fields["runAt"] != nil
}

// operations lists the described operations, such as "get /jobs/{id}".
func (d *description) operations() []string {
	var list []string
	paths, _ := d.root["paths"].(object)
	for path, methods := range paths {
		for method := range methods.(object) {
			list = append(list, method+" "+path)
		}
	}
	slices.Sort(list)
	return list
}
