// How a JSON object becomes a payload or a request's body, and how an error says what is wrong with it.

package tasks

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FieldError says which field of a JSON body is wrong, what it was and what it must be.
type FieldError struct {
	Field, Was, Allowed string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s was %s; it must be %s", e.Field, e.Was, e.Allowed)
}

// NewFieldError returns the error for a field of the struct that v points to. Was is the wrong value. The field's `allowed` tag
// says what it must be.
func NewFieldError(v any, field string, was any) *FieldError {
	e := &FieldError{Field: field, Was: Describe(was)}
	for _, f := range fieldsOf(v) {
		if f.Name == field {
			e.Allowed = f.Allowed
		}
	}
	return e
}

// Decode reads a JSON object into the struct that v points to. It is strict: an unknown field, a field that is there twice, a
// required one that is not, a null, a value of another type, a text that is none of its options and anything after the object are errors, which say what is wrong, what it was and what it must
// be. A whole number may be written as 100.0 and 1e2. Empty data stands for the empty object. Decode validates v if v is a
// Payload.
func Decode(data []byte, v any) error {
	object, err := decodeObject(data)
	if err != nil {
		return err
	}
	return decodeFields(object, v)
}

// decodeFields decodes the fields of an object into the structs that the targets point to, and validates each Payload of them.
func decodeFields(object map[string]json.RawMessage, targets ...any) error {
	var known []field
	for _, v := range targets {
		known = append(known, fieldsOf(v)...)
	}
	for name := range object {
		if !contains(known, name) {
			return &FieldError{Field: "the field " + Describe(name), Was: "not known", Allowed: allowedFields(known)}
		}
	}
	for _, v := range targets {
		if err := decodeInto(object, v); err != nil {
			return err
		}
	}
	for _, v := range targets {
		if p, ok := v.(Payload); ok {
			if err := p.Validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

// decodeInto decodes those fields of an object that the struct has that v points to.
func decodeInto(object map[string]json.RawMessage, v any) error {
	into := reflect.ValueOf(target(v)).Elem()
	for _, f := range fieldsOf(v) {
		raw, given := object[f.Name]
		if !given && f.Required {
			return &FieldError{Field: f.Name, Was: "missing", Allowed: f.Allowed}
		}
		if !given {
			continue
		}
		if f.Type == "integer" {
			raw = wholeNumber(raw)
		}
		if string(raw) == "null" || decodeValue(raw, into.Field(f.index).Addr().Interface()) != nil {
			return &FieldError{Field: f.Name, Was: abbreviate(string(object[f.Name])), Allowed: f.Allowed}
		}
		if text := reflect.Indirect(into.Field(f.index)); f.Options != nil && text.String() != "" && !slices.Contains(f.Options, text.String()) {
			return &FieldError{Field: f.Name, Was: Describe(text.String()), Allowed: f.Allowed}
		}
	}
	return nil
}

// decodeValue decodes the value of a field. An unknown field within it is an error.
func decodeValue(raw json.RawMessage, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

// wholeNumber writes a whole number such as 100.0 and 1e2, which is an integer to JSON Schema, as Go reads one. It returns any
// other JSON as it is.
func wholeNumber(raw json.RawMessage) json.RawMessage {
	const exact = 1 << 53 // a float64 has every whole number up to here
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact || !bytes.ContainsAny(raw, ".eE") {
		return raw
	}
	return strconv.AppendInt(nil, int64(f), 10)
}

// duplicate returns the name of a field that is there twice in an object of valid JSON, at any depth; false when there is none.
func duplicate(decoder *json.Decoder) (string, bool) {
	start, err := decoder.Token()
	if err != nil || start != json.Delim('{') && start != json.Delim('[') {
		return "", false
	}
	names := make(map[string]bool)
	for decoder.More() {
		if start == json.Delim('{') {
			token, _ := decoder.Token() // the JSON is valid
			name, _ := token.(string)
			if names[name] {
				return name, true
			}
			names[name] = true
		}
		if name, ok := duplicate(decoder); ok {
			return name, true
		}
	}
	_, _ = decoder.Token() // the end
	return "", false
}

func decodeObject(data []byte) (map[string]json.RawMessage, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	if !utf8.Valid(data) {
		return nil, errors.New("the body was not valid UTF-8; it must be a JSON object in UTF-8")
	}
	var object map[string]json.RawMessage
	decoder := json.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&object)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		return nil, fmt.Errorf("the body was a JSON %s; it must be a JSON object", typeOf(data))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("the body was not valid JSON: it ends too early; it must be a JSON object")
	case err != nil:
		return nil, fmt.Errorf("the body was not valid JSON: %w; it must be a JSON object", err)
	case object == nil:
		return nil, errors.New("the body was null; it must be a JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body was more than one JSON value; it must be one JSON object")
	}
	if name, ok := duplicate(json.NewDecoder(bytes.NewReader(data))); ok {
		return nil, &FieldError{Field: "the field " + Describe(name), Was: "given more than once", Allowed: "given once"}
	}
	return object, nil
}

// typeOf returns the JSON type of valid JSON data that is neither an object nor null.
func typeOf(data []byte) string {
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

// Field is a field of a payload's JSON.
type Field struct {
	Name string
	// Type is its JSON type: string, integer, number, boolean, array or object. It is "" for a Go type that encodes itself.
	Type string
	// Allowed is the field's `allowed` tag. It says in words what the field must be: "a whole number from 1 to 10000". Without a
	// tag it names the options, or the type.
	Allowed string
	// Required is true for a field with the tag `required:"true"`. Decode refuses an object without it.
	Required bool
	// Options are the values that a text can have, from its tag `options:"incremental,full"`. Decode refuses others. It takes "", which
	// Validate can make the default. There are none for a field that can have any.
	Options []string
	// Default is what Validate makes of an object without the field, as JSON. It is nil if that leaves the zero value, or if the
	// payload cannot tell.
	Default json.RawMessage
}

// allowedByType says what a field without an `allowed` tag must be.
var allowedByType = map[string]string{
	"string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "an array",
	"object": "an object", "": "a value that it understands",
}

// Fields returns the fields of the job type's payload, in the order of the Go struct.
func (d Definition) Fields() []Field {
	p := d.NewPayload()
	setDefaults(p)
	value := reflect.ValueOf(target(p)).Elem()
	var list []Field
	for _, f := range fieldsOf(p) {
		if set := value.Field(f.index); !f.Required && !set.IsZero() {
			f.Default, _ = json.Marshal(set.Interface()) // a task carries it as JSON, too
		}
		list = append(list, f.Field)
	}
	return list
}

// setDefaults lets Validate set the defaults of an empty payload. It may refuse that, or not be made for it.
func setDefaults(p Payload) {
	defer func() { _ = recover() }()
	_ = p.Validate()
}

type field struct {
	Field
	index int
}

// The tags of a payload's fields that say more than what they must be in words.
const (
	requiredTag = "required"
	optionsTag  = "options"
)

// quoted lists texts as error messages do: "a" or "b".
func quoted(texts []string) string {
	var list []string
	for _, text := range texts {
		list = append(list, strconv.Quote(text))
	}
	return strings.Join(list, " or ")
}

// fieldsOf returns the JSON fields of the struct that v points to.
func fieldsOf(v any) []field {
	var fields []field
	t := reflect.TypeOf(target(v)).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			kind, tag := jsonType(t.Field(i).Type), t.Field(i).Tag
			f := Field{Name: name, Type: kind, Required: tag.Get(requiredTag) == "true"}
			if options := tag.Get(optionsTag); options != "" {
				f.Options = strings.Split(options, ",")
			}
			f.Allowed = cmp.Or(tag.Get("allowed"), quoted(f.Options), allowedByType[kind])
			fields = append(fields, field{f, i})
		}
	}
	return fields
}

func jsonType(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		return jsonType(t.Elem())
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return ""
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "string" // base64
		}
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	default:
		return ""
	}
}

func contains(fields []field, name string) bool {
	for _, f := range fields {
		if f.Name == name {
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
		list = append(list, fmt.Sprintf("%q (%s)", f.Name, f.Allowed))
	}
	return strings.Join(list, " or ")
}

// Describe returns a value as error messages show it: as JSON, cut off after 60 characters.
func Describe(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "not representable"
	}
	return abbreviate(strings.TrimSuffix(text.String(), "\n"))
}

// abbreviate keeps an error message short, whatever the client sent.
func abbreviate(s string) string {
	const limit = 60
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return s
}
