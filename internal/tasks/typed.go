// Payloads that are any struct with JSON fields.

package tasks

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// TypedPayload is a Payload that is a struct of type P with JSON fields. Payloads that are equal have the same unique key. If *P has
// a method Validate() error, that sets defaults, and returns an error that says what is wrong.
type TypedPayload[P any] struct{ Value P }

// UniqueKey returns a hash of the payload's JSON.
func (p *TypedPayload[P]) UniqueKey() string { return hashedKey(p.Value) }

// Validate calls the payload's own Validate, if it has one.
func (p *TypedPayload[P]) Validate() error {
	if own, ok := any(&p.Value).(interface{ Validate() error }); ok {
		return own.Validate()
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (p *TypedPayload[P]) MarshalJSON() ([]byte, error) { return json.Marshal(p.Value) }

func (p *TypedPayload[P]) target() any { return &p.Value }

// target returns what has the JSON fields: v itself, or the struct of a TypedPayload.
func target(v any) any {
	if typed, ok := v.(interface{ target() any }); ok {
		return typed.target()
	}
	return v
}

// checkFields returns an error if a payload has a field that would not survive: each must have a name in JSON.
func checkFields(v any) error {
	t := reflect.TypeOf(target(v)).Elem()
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("its payload must be a struct, was %s", t)
	}
	seen := make(map[string]bool)
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct && f.Type.NumField() == 0:
			continue // it brings methods only
		case f.Anonymous:
			return fmt.Errorf("its payload must not embed %s; name its fields one by one", f.Type)
		case !f.IsExported() && !tagged, tag == "-":
			continue
		case !f.IsExported() || name == "":
			return fmt.Errorf("the payload's field %s must be exported, and have a name in a json tag", f.Name)
		case seen[name]:
			return fmt.Errorf("two fields of the payload have the name %q", name)
		}
		if _, ok := f.Tag.Lookup(optionsTag); ok && !isText(f.Type) {
			return fmt.Errorf("the payload's field %s has options, so it must be a text, was %s", f.Name, f.Type)
		}
		seen[name] = true
	}
	return nil
}

// isText reports whether a field of the type is a text in Go and in JSON.
func isText(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String && jsonType(t) == "string"
}
