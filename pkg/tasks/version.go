package tasks

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// While a system is upgraded one process after another, processes of two releases work on the same queues. So a task's
// payload says in which version of its job type's payload it is written, beside the payload's own fields. A release
// understands its own version and all before it: fields may be added to a payload, with a default that means what their
// absence meant before, under a new PayloadVersion.

// versionField is the JSON field of the version. Payloads of before there were versions have none: version 1.
const versionField = "version"

// NewerVersionError is returned for a payload of a newer release. It cannot be understood here, but elsewhere.
type NewerVersionError struct {
	// Version is the payload's, Known the latest that this release understands.
	Version, Known int
}

func (e *NewerVersionError) Error() string {
	return fmt.Sprintf("the payload is of version %d; this release understands up to version %d", e.Version, e.Known)
}

// EncodePayload returns the payload as a task carries it: its JSON, with the version before its own fields.
func (d Definition) EncodePayload(p Payload) ([]byte, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding a payload of %s: %w", d.Name, err)
	}
	fields, isObject := bytes.CutPrefix(data, []byte("{"))
	if !isObject {
		return nil, fmt.Errorf("encoding a payload of %s: it is no JSON object", d.Name)
	}
	versioned := fmt.Appendf(nil, `{"%s":%d`, versionField, d.payloadVersion())
	if string(fields) != "}" {
		versioned = append(versioned, ',')
	}
	return append(versioned, fields...), nil
}

// DecodePayload reads a payload of the job type, strictly; see Decode. It returns a *NewerVersionError for one that only
// a newer release understands.
func (d Definition) DecodePayload(data []byte) (Payload, error) {
	p := d.NewPayload()
	fields, err := d.withoutVersion(data)
	if err != nil {
		return nil, err
	}
	if err := Decode(fields, p); err != nil {
		return nil, err
	}
	return p, nil
}

// withoutVersion checks the version and returns the payload's own fields. What is no JSON object it returns as it is.
func (d Definition) withoutVersion(data []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if notAnObject := json.Unmarshal(data, &object); notAnObject != nil || object[versionField] == nil {
		return data, nil //nolint:nilerr // Decode says what is wrong with it
	}
	var version int
	if err := json.Unmarshal(object[versionField], &version); err != nil || version < 1 {
		return nil, &FieldError{Field: versionField, Was: abbreviate(string(object[versionField])), Allowed: "a whole number from 1"}
	}
	if version > d.payloadVersion() {
		return nil, &NewerVersionError{Version: version, Known: d.payloadVersion()}
	}
	delete(object, versionField)
	return json.Marshal(object)
}

func (d Definition) payloadVersion() int { return max(1, d.PayloadVersion) }

// PayloadFields returns the payload's own fields, as JSON, for people to read; null for what is no payload of the job
// type.
func (d Definition) PayloadFields(data []byte) json.RawMessage {
	if p, err := d.DecodePayload(data); err == nil {
		if fields, err := json.Marshal(p); err == nil {
			return fields
		}
	}
	return json.RawMessage("null")
}
