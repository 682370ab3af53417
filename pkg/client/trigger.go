package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// What a trigger says beside the payload.

// TriggerOption changes what Trigger asks for.
type TriggerOption func(*triggerBody)

// RunAt lets the job start at an instant, and not before. One that has passed means now. It can be at most 365 days ahead.
func RunAt(at time.Time) TriggerOption { return func(b *triggerBody) { b.runAt = &at } }

// Delay lets the job start after a time, from when the server accepts the trigger. It is rounded up to milliseconds, and can be
// at most 365 days.
func Delay(d time.Duration) TriggerOption { return func(b *triggerBody) { b.delay = &d } }

// triggerBody is the fields of a trigger's body that are not the payload's.
type triggerBody struct {
	runAt *time.Time
	delay *time.Duration
}

// with returns the payload with the fields. It returns an error if it is no JSON object.
func (b triggerBody) with(payload any) (any, error) {
	var fields bytes.Buffer
	if b.runAt != nil {
		fmt.Fprintf(&fields, `"runAt":%q,`, b.runAt.UTC().Format(time.RFC3339Nano))
	}
	if b.delay != nil {
		fmt.Fprintf(&fields, `"delay":%d,`, int64((*b.delay+time.Millisecond-1)/time.Millisecond))
	}
	if fields.Len() == 0 {
		return payload, nil
	}
	data := []byte("{}")
	if payload != nil {
		var err error
		if data, err = json.Marshal(payload); err != nil {
			return nil, fmt.Errorf("encoding the payload: %w", err)
		}
	}
	own, isObject := bytes.CutPrefix(data, []byte("{"))
	if !isObject {
		return nil, errors.New("the payload must be a JSON object")
	}
	if string(own) == "}" {
		fields.Truncate(fields.Len() - 1) // no comma before the end
	}
	return json.RawMessage(append([]byte("{"), append(fields.Bytes(), own...)...)), nil
}
