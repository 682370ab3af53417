// The description of the API as the page at /docs and docs/api.md need it: everything in the order in which it was written,
// and the references resolved.

package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// ordered is a JSON object whose members stay in order.
type ordered[T any] []member[T]

type member[T any] struct {
	Name  string
	Value T
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *ordered[T]) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return fmt.Errorf("reading an object: it begins with %v, %w", start, err)
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("reading the name of a member: %w", err)
		}
		m := member[T]{Name: fmt.Sprint(name)}
		if err := decoder.Decode(&m.Value); err != nil {
			return fmt.Errorf("reading %s: %w", m.Name, err)
		}
		*o = append(*o, m)
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (o ordered[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(m.Value)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", m.Name, err)
		}
		fmt.Fprintf(&b, "%s:%s", literal(m.Name), value)
	}
	return []byte("{" + b.String() + "}"), nil
}

// get returns the value of a member, or the zero value.
func (o ordered[T]) get(name string) (value T) {
	for _, m := range o {
		if m.Name == name {
			return m.Value
		}
	}
	return value
}

// document is the part of an OpenAPI document that is shown.
type document struct {
	Info struct {
		Title, Version, Summary, Description string
	}
	Tags       []struct{ Name, Description string }
	Paths      ordered[ordered[operation]]
	Webhooks   ordered[ordered[operation]]
	Components struct {
		SecuritySchemes ordered[struct{ Description string }]
		Parameters      ordered[parameter]
		Responses       ordered[response]
		Schemas         ordered[*schema]
	}
}

type operation struct {
	OperationID          string
	Tags                 []string
	Summary, Description string
	// Security is nil where the document's holds, and empty where no key is needed.
	Security    *[]any
	Parameters  []parameter
	RequestBody *body
	Responses   ordered[response]
}

type parameter struct {
	Ref                   string `json:"$ref"`
	Name, In, Description string
	Required              bool
	Schema                *schema
	Example               any
}

type body struct {
	Description string
	Content     ordered[content]
}

type response struct {
	// Ref stays after it is resolved: it marks a response that operations share.
	Ref         string `json:"$ref"`
	Description string
	Content     ordered[content]
}

type content struct {
	Schema   *schema
	Example  json.RawMessage
	Examples ordered[struct {
		Summary string
		Value   json.RawMessage
	}]
}

type schema struct {
	Ref              string `json:"$ref"`
	Type             any
	Description      string
	Required         []string
	Properties       ordered[*schema]
	Items            *schema
	AnyOf            []*schema
	Enum             []any
	Const, Default   any
	Minimum, Maximum *float64
	Pattern          string
}

// refName returns the last part of a reference.
func refName(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// parseDocument reads an OpenAPI document and resolves its references, but for those to schemas, whose names are shown.
func parseDocument(data []byte) (*document, error) {
	d := new(document)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("reading the description of the API: %w", err)
	}
	for _, path := range d.Paths {
		for _, method := range path.Value {
			for i, p := range method.Value.Parameters {
				if p.Ref != "" {
					method.Value.Parameters[i] = d.Components.Parameters.get(refName(p.Ref))
				}
			}
			for i, r := range method.Value.Responses {
				if r.Value.Ref != "" {
					shared := d.Components.Responses.get(refName(r.Value.Ref))
					shared.Ref = r.Value.Ref
					method.Value.Responses[i].Value = shared
				}
			}
		}
	}
	return d, nil
}

// words says what a value must be. The names of other schemas are left to the page, see refs.
func (s *schema) words() string {
	var parts []string
	switch kind := s.Type.(type) {
	case string:
		if len(s.Enum) == 0 {
			parts = append(parts, kind)
		}
	case []any:
		var kinds []string
		for _, k := range kind {
			kinds = append(kinds, fmt.Sprint(k))
		}
		parts = append(parts, strings.Join(kinds, " or "))
	}
	if s.Const != nil {
		parts = append(parts, "always "+literal(s.Const))
	}
	if len(s.Enum) > 0 {
		var values []string
		for _, v := range s.Enum {
			values = append(values, literal(v))
		}
		parts = append(parts, strings.Join(values, " or "))
	}
	number := func(f *float64) string { return strconv.FormatFloat(*f, 'f', -1, 64) }
	switch {
	case s.Minimum != nil && s.Maximum != nil:
		parts = append(parts, "from "+number(s.Minimum)+" to "+number(s.Maximum))
	case s.Minimum != nil:
		parts = append(parts, number(s.Minimum)+" or more")
	}
	return strings.Join(parts, ", ")
}

// literal is a value as JSON.
func literal(v any) string {
	text, _ := json.Marshal(v) // it came from JSON
	return string(text)
}

// refs names the schemas that a value is of, and says how they are put together.
func (s *schema) refs() (names []string, list bool) {
	switch {
	case s == nil:
	case s.Ref != "":
		return []string{refName(s.Ref)}, false
	case s.Items != nil:
		names, _ = s.Items.refs()
		return names, true
	default:
		for _, one := range s.AnyOf {
			of, _ := one.refs()
			names = append(names, of...)
		}
	}
	return names, false
}
