// What a trigger's body can say beside the payload: when its run is to start.

package tasks

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaxDelay is how far ahead a trigger can put its run.
const MaxDelay = 365 * 24 * time.Hour

const (
	runAtField = "runAt"
	delayField = "delay"
)

// reservedFields are the fields that no payload can have, because a task or a trigger's body has them beside the payload's own.
var reservedFields = []string{versionField, runAtField, delayField}

// start is the fields of a trigger's body that say when its run is to start.
type start struct {
	RunAt *instant `json:"runAt" allowed:"an instant such as \"2026-11-24T04:50:00.000Z\", at most 365 days ahead"`
	// Delay is in milliseconds.
	Delay *int64 `json:"delay" allowed:"a whole number of milliseconds from 0 to 31536000000"`
}

// instant is a time as RFC 3339 writes it.
type instant struct {
	text string // as it came
	at   time.Time
}

// rfc3339 is stricter than Go's time, which takes 4:50 and a comma.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *instant) UnmarshalText(text []byte) (err error) {
	i.text = string(text)
	upper := strings.ToUpper(i.text) // small letters are allowed, too
	if !rfc3339.MatchString(upper) {
		return errors.New("no instant of RFC 3339")
	}
	i.at, err = time.Parse(time.RFC3339, upper)
	return err
}

// StartFields returns the fields that the body of each trigger can have beside those of the payload. They say when the run is to
// start.
func StartFields() []Field {
	var list []Field
	for _, f := range fieldsOf(new(start)) {
		list = append(list, f.Field)
	}
	return list
}

// DecodeTrigger reads the body of a trigger, as strictly as Decode: the payload's fields, and "runAt" or "delay". It returns
// the payload, and when the run is to start, in whole milliseconds. That is the zero time if the run is to start now, also
// because the time has passed.
func (d Definition) DecodeTrigger(body []byte, now time.Time) (Payload, time.Time, error) {
	object, err := decodeObject(body)
	if err != nil {
		return nil, time.Time{}, err
	}
	p, when := d.NewPayload(), new(start)
	if err := decodeFields(object, p, when); err != nil {
		return nil, time.Time{}, err
	}
	at, err := when.time(now)
	return p, at, err
}

// time returns when the run is to start; the zero time means now.
func (s *start) time(now time.Time) (time.Time, error) {
	var at time.Time
	switch {
	case s.RunAt != nil && s.Delay != nil:
		return at, &FieldError{
			Field: fmt.Sprintf("the field %q", delayField), Was: fmt.Sprintf("given beside %q", runAtField),
			Allowed: "given without that, or left out",
		}
	case s.RunAt != nil:
		if at = s.RunAt.at; at.After(now.Add(MaxDelay)) {
			return at, NewFieldError(s, runAtField, s.RunAt.text)
		}
	case s.Delay != nil:
		if *s.Delay < 0 || *s.Delay > MaxDelay.Milliseconds() {
			return at, NewFieldError(s, delayField, *s.Delay)
		}
		at = now.Add(time.Duration(*s.Delay) * time.Millisecond)
	}
	if !at.After(now) {
		return time.Time{}, nil
	}
	if whole := at.Truncate(time.Millisecond); whole.Before(at) {
		at = whole.Add(time.Millisecond) // never before the time
	}
	return at.UTC(), nil
}

// checkReserved returns an error if a payload has a field that belongs to a task or to a trigger's body.
func checkReserved(p Payload) error {
	for _, f := range fieldsOf(p) {
		if slices.Contains(reservedFields, f.Name) {
			owner := "a trigger's"
			if f.Name == versionField {
				owner = "its version's"
			}
			return fmt.Errorf("the payload must not have a field %q, which is %s", f.Name, owner)
		}
	}
	return nil
}
