package tasks_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestPayloadVersions(t *testing.T) {
	t.Parallel()
	first, _ := codex.Registry().Lookup("user-sync")
	second := first
	second.PayloadVersion = 2
	encoded, err := second.EncodePayload(&tasks.SyncPayload{SyncType: tasks.SyncFull})
	if err != nil || string(encoded) != `{"version":2,"syncType":"full"}` {
		t.Fatalf("encoded %s, %v", encoded, err)
	}
	if _, err := second.DecodePayload(encoded); err != nil {
		t.Errorf("its own: %v", err)
	}
	var newer *tasks.NewerVersionError
	if _, err := first.DecodePayload(encoded); !errors.As(err, &newer) || newer.Version != 2 || newer.Known != 1 {
		t.Errorf("a newer one: %v", err)
	}
	if _, err := first.DecodePayload([]byte(`{"version":2,"shape":["quite","another"]}`)); !errors.As(err, &newer) {
		t.Errorf("a newer one with fields that are not known here: %v", err)
	}
	for _, understood := range []string{`{"syncType":"full"}`, `{"version":1,"syncType":"full"}`, `{"syncType":"full","version":2}`} {
		p, err := second.DecodePayload([]byte(understood))
		if err != nil || p.UniqueKey() != tasks.SyncFull {
			t.Errorf("%s: %+v, %v", understood, p, err)
		}
	}
	for _, wrong := range []string{`{"version":0}`, `{"version":-1}`, `{"version":1.5}`, `{"version":"1"}`, `{"version":[]}`} {
		if _, err := first.DecodePayload([]byte(wrong)); err == nil || errors.As(err, &newer) ||
			!strings.HasPrefix(err.Error(), "version was ") || !strings.HasSuffix(err.Error(), "it must be a whole number from 1") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	// The version is the task's: no client may give one.
	if err := tasks.Decode([]byte(`{"version":1}`), new(tasks.SyncPayload)); err == nil {
		t.Error("a request's body with a version was taken")
	}
}

func TestPayloadFields(t *testing.T) {
	t.Parallel()
	def, _ := codex.Registry().Lookup("user-sync")
	for data, want := range map[string]string{
		`{"version":1,"syncType":"full","batchSize":7}`: `{"syncType":"full","batchSize":7}`,
		`{"syncType":"incremental"}`:                    `{"syncType":"incremental"}`,
		`{"version":9}`:                                 `null`,
		`garbage`:                                       `null`,
	} {
		if got := string(def.PayloadFields([]byte(data))); got != want {
			t.Errorf("%s: %s, want %s", data, got, want)
		}
	}
}

// versioned is a payload with a field that is taken.
type versioned struct {
	Version int `json:"version"`
}

func (*versioned) UniqueKey() string { return "" }
func (*versioned) Validate() error   { return nil }

func TestVersionIsReserved(t *testing.T) {
	t.Parallel()
	_, err := tasks.NewRegistry(tasks.Definition{Name: "a", Title: "A", NewPayload: func() tasks.Payload { return new(versioned) }})
	if err == nil || !strings.Contains(err.Error(), `"version"`) {
		t.Errorf("%v", err)
	}
}

// FuzzDecodePayload looks for a payload that is neither understood nor refused in words, or that is not the same after
// it has been encoded again.
func FuzzDecodePayload(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `"x"`, `{"syncType":"full"}`, `{"version":1,"syncType":"incremental","batchSize":100}`, `{"version":2}`,
		`{"version":9007199254740993}`, `{"version":1e400}`, `{"batchSize":1.0}`, `{"syncType":"full","syncType":"x"}`, "\x00\xff", `{"a":`, `{"version":null}`,
		`{"syncType":"full"}{}`, strings.Repeat(`{"a":`, 1000),
	} {
		f.Add([]byte(seed))
	}
	def, _ := codex.Registry().Lookup("user-sync")
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := def.DecodePayload(data)
		if err != nil {
			if p != nil || err.Error() == "" || len(err.Error()) > 1000 {
				t.Errorf("%+v, %v", p, err)
			}
			return
		}
		sync := p.(*tasks.SyncPayload)
		if sync.Validate() != nil {
			t.Errorf("took %q for %+v, which is not valid", data, sync)
		}
		encoded, err := def.EncodePayload(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := def.DecodePayload(encoded)
		if err != nil || again.UniqueKey() != p.UniqueKey() || (again.(*tasks.SyncPayload).BatchSize == nil) != (sync.BatchSize == nil) {
			t.Errorf("%q became %s and then %+v, %v", data, encoded, again, err)
		}
	})
}

// FuzzParseID looks for text that is read as an ID but is not that ID's text.
func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"1000:user-sync", "1000:user-sync:abcd", "1000:user-sync/3", "-1:a", "01:a", "1:a:", "1:A", "9223372036854775807:a", "1:a/99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := tasks.ParseRunID(s); err == nil && id.String() != s {
			t.Errorf("%q was read as %s", s, id)
		}
		if id, err := tasks.ParseRangeID(s); err == nil && id.String() != s {
			t.Errorf("%q was read as %s", s, id)
		}
	})
}
