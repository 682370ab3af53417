// Payloads have versions, because during a rolling upgrade processes of two releases work on the same queues. So a task's
// payload has a version beside its own fields. A release understands its own version and all before it. A new field needs a
// new PayloadVersion, and a default that means what its absence meant before.

package tasks

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// versionField is the JSON field of the version. A payload without it has version 1.
const versionField = "version"

// NewerVersionError is the error for a payload that only a newer release understands.
type NewerVersionError struct {
	// Version is the payload's version, Known the latest one that this release understands.
	Version, Known int
}

func (e *NewerVersionError) Error() string {
	return fmt.Sprintf("the payload is of version %d; this release understands up to version %d", e.Version, e.Known)
}

// EncodePayload returns the payload as a task carries it: as JSON, with the version before its own fields.
func (d Definition) EncodePayload(p Payload) ([]byte, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding a payload of %s: %w", d.Name, err)
	}
	fields, isObject := bytes.CutPrefix(data, []byte("{"))
	if !isObject {
		return nil, fmt.Errorf("encoding a payload of %s: it must be a JSON object, was %s", d.Name, abbreviate(string(data)))
	}
	versioned := fmt.Appendf(nil, `{"%s":%d`, versionField, d.payloadVersion())
	if string(fields) != "}" {
		versioned = append(versioned, ',')
	}
	return append(versioned, fields...), nil
}

// DecodePayload reads what EncodePayload returned, as strictly as Decode. It returns a *NewerVersionError for a payload that
// only a newer release understands.
func (d Definition) DecodePayload(data []byte) (Payload, error) {
	object, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	if err := d.takeVersion(object); err != nil {
		return nil, err
	}
	p := d.NewPayload()
	if err := decodeFields(object, p); err != nil {
		return nil, err
	}
	return p, nil
}

// takeVersion checks the version, and removes it from the object.
func (d Definition) takeVersion(object map[string]json.RawMessage) error {
	raw, given := object[versionField]
	if !given {
		return nil
	}
	var version int
	if err := json.Unmarshal(raw, &version); err != nil || version < 1 {
		return &FieldError{Field: versionField, Was: abbreviate(string(raw)), Allowed: "a whole number from 1"}
	}
	if version > d.payloadVersion() {
		return &NewerVersionError{Version: version, Known: d.payloadVersion()}
	}
	delete(object, versionField)
	return nil
}

func (d Definition) payloadVersion() int { return max(1, d.PayloadVersion) }

// PayloadFields returns the payload's own fields as JSON, for people to read. It returns null for data that is not a payload of
// the job type.
func (d Definition) PayloadFields(data []byte) json.RawMessage {
	if p, err := d.DecodePayload(data); err == nil {
		if fields, err := json.Marshal(p); err == nil {
			return fields
		}
	}
	return json.RawMessage("null")
}
