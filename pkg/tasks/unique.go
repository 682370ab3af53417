// Which triggers share a run, and a unique key for payloads that have none of their own.

package tasks

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// UniqueMode says for how long a run serves further triggers with its unique key.
type UniqueMode int

// The modes of Unique.
const (
	// UniqueWaiting is for as long as the run waits. It is the default.
	UniqueWaiting UniqueMode = iota
	// UniqueFor is for a time after the run's trigger was accepted, whatever has become of the run by then, and for as long as it
	// waits.
	UniqueFor
	// UniqueNever is not at all: each trigger, and each tick, has a run of its own. The unique key is of no use.
	UniqueNever
)

// maxUniqueFor bounds Unique.For: for so long Redis keeps an entry of each unique key.
const maxUniqueFor = 30 * 24 * time.Hour

// Unique says which triggers of a job type share a run. The zero value is UniqueWaiting. What holds for all modes: a delayed run
// serves nothing before it is due, and only a run that waits serves a tick, whose work must be done.
type Unique struct {
	Mode UniqueMode
	// For is the time of UniqueFor, more than 0 and at most 30 days. It begins when a trigger is accepted that has a new run. The
	// run of a tick and a delayed run begin no such time. When the run is cancelled while it waits, the time ends.
	For time.Duration
}

func (u Unique) validate() error {
	switch {
	case u.Mode < UniqueWaiting || u.Mode > UniqueNever:
		return fmt.Errorf("the mode of Unique was %d; it must be UniqueWaiting, UniqueFor or UniqueNever", u.Mode)
	case u.Mode == UniqueFor && (u.For <= 0 || u.For > maxUniqueFor):
		return fmt.Errorf("the time of UniqueFor was %s; it must be more than 0 and at most %s", u.For, maxUniqueFor)
	case u.Mode != UniqueFor && u.For != 0:
		return errors.New("a time of Unique was set without the mode UniqueFor")
	}
	return nil
}

// hashedKeyBytes is how much of a hash HashedKey keeps. Two payloads with the same key by chance are out of the question.
const hashedKeyBytes = 16

// HashedKey returns a unique key for a payload that has no better one: 32 hexadecimal digits, made of all that is in its JSON.
// Payloads that are equal once their defaults are set have the same key, whatever the order of their fields. A payload's
// UniqueKey can return it:
//
//	func (p *report) UniqueKey() string { return tasks.HashedKey(p) }
func HashedKey(p Payload) string {
	data, err := json.Marshal(withDefaults(p))
	if err != nil { // EncodePayload says so: such a payload is never enqueued
		return ""
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // a float64 would make large whole numbers equal
	if err := decoder.Decode(&value); err != nil {
		return ""
	}
	canonical, _ := json.Marshal(canonicalNumbers(value)) // sorts the fields; it came from JSON
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:hashedKeyBytes])
}

// withDefaults returns a copy of the payload with its defaults, as a worker decodes it. It returns the payload itself if that is
// not valid, and so is never run.
func withDefaults(p Payload) Payload {
	t := reflect.TypeOf(p)
	data, err := json.Marshal(p)
	if err != nil || t.Kind() != reflect.Pointer {
		return p
	}
	copied, ok := reflect.New(t.Elem()).Interface().(Payload)
	if !ok || json.Unmarshal(data, copied) != nil || copied.Validate() != nil {
		return p
	}
	return copied
}

// canonicalNumbers returns the value with each number in one form. The numbers of a payload that keeps JSON as it came can have
// several: 100, 100.0 and 1e2.
func canonicalNumbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		return json.Number(canonicalNumber(string(value)))
	case []any:
		for i := range value {
			value[i] = canonicalNumbers(value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = canonicalNumbers(value[name])
		}
	}
	return value
}

func canonicalNumber(text string) string {
	whole := string(wholeNumber(json.RawMessage(text)))
	if whole == "-0" {
		return "0"
	}
	if f, err := strconv.ParseFloat(whole, 64); err == nil && strings.ContainsAny(whole, ".eE") {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return whole
}
