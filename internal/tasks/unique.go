// Which triggers share a run, and the unique key of payloads that have none of their own.

package tasks

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// hashedKeyBytes is how much of a hash hashedKey keeps. Two payloads with the same key by chance are out of the question.
const hashedKeyBytes = 16

// hashedKey returns a unique key of a value: 32 hexadecimal digits, made of all that is in its JSON, whatever the order of the
// fields.
func hashedKey(v any) string {
	data, err := json.Marshal(v)
	if err != nil { // EncodePayload says so: such a payload is never enqueued
		return ""
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // a float64 would make large whole numbers equal
	if err := decoder.Decode(&value); err != nil {
		return ""
	}
	canonical, _ := json.Marshal(value) // sorts the fields; it came from JSON
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:hashedKeyBytes])
}
