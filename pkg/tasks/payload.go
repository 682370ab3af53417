package tasks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// FieldError says which field of a JSON body is wrong, what it was, and what it may be.
type FieldError struct {
	Field, Was, Allowed string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s was %s; it may be %s", e.Field, e.Was, e.Allowed)
}

// NewFieldError returns the error for a field of the struct that v points to: was is the value found, and what it may
// be is read from the field's `allowed` tag.
func NewFieldError(v any, field string, was any) *FieldError {
	e := &FieldError{Field: field, Was: Describe(was)}
	for _, f := range fieldsOf(v) {
		if f.name == field {
			e.Allowed = f.allowed
		}
	}
	return e
}

// Decode reads data, a JSON object, into the struct that v points to, strictly: an unknown field, a null, a value of
// another type and anything after the object are errors that name the field, what it was and what it may be. Empty
// data is the empty object. If v is a Payload it is validated.
func Decode(data []byte, v any) error {
	fields := fieldsOf(v)
	var object map[string]json.RawMessage
	if len(bytes.TrimSpace(data)) > 0 {
		if err := decodeObject(data, &object); err != nil {
			return err
		}
	}
	for name := range object {
		if !contains(fields, name) {
			return &FieldError{Field: "the field " + Describe(name), Was: "not known", Allowed: allowedFields(fields)}
		}
	}
	target := reflect.ValueOf(v).Elem()
	for _, f := range fields {
		raw, given := object[f.name]
		if !given {
			continue
		}
		if string(raw) == "null" || json.Unmarshal(raw, target.Field(f.index).Addr().Interface()) != nil {
			return &FieldError{Field: f.name, Was: abbreviate(string(raw)), Allowed: f.allowed}
		}
	}
	if p, ok := v.(Payload); ok {
		return p.Validate()
	}
	return nil
}

func decodeObject(data []byte, object *map[string]json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(object)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("the body was a JSON %s; it may be a JSON object", kindOf(data))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the body was not valid JSON: it ends too early; it may be a JSON object")
	case err != nil:
		return fmt.Errorf("the body was not valid JSON: %w; it may be a JSON object", err)
	case *object == nil:
		return errors.New("the body was null; it may be a JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the body was more than one JSON value; it may be one JSON object")
	}
	return nil
}

// kindOf names the JSON type of valid JSON data that is not an object.
func kindOf(data []byte) string {
	switch c := bytes.TrimSpace(data)[0]; c {
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	default:
		return "number"
	}
}

type field struct {
	index         int
	name, allowed string
}

// fieldsOf lists the JSON fields of the struct that v points to.
func fieldsOf(v any) []field {
	var fields []field
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields = append(fields, field{i, name, t.Field(i).Tag.Get("allowed")})
		}
	}
	return fields
}

func contains(fields []field, name string) bool {
	for _, f := range fields {
		if f.name == name {
			return true
		}
	}
	return false
}

func allowedFields(fields []field) string {
	if len(fields) == 0 {
		return "left out: this body has no fields"
	}
	var list []string
	for _, f := range fields {
		list = append(list, fmt.Sprintf("%q (%s)", f.name, f.allowed))
	}
	return strings.Join(list, " or ")
}

// Describe returns a value as error messages show it: as JSON, and short.
func Describe(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "not representable"
	}
	return abbreviate(strings.TrimSuffix(text.String(), "\n"))
}

// abbreviate keeps an error message short whatever the client sent.
func abbreviate(s string) string {
	const limit = 60
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return s
}
