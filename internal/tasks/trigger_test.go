package tasks_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestDecodeTrigger(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 4, 50, 0, 500_000_000, time.UTC)
	def, _ := codex.Registry().Lookup("user-sync")
	const runAt = `; it must be an instant such as "2026-11-24T04:50:00.000Z", at most 365 days ahead`
	const delay = `; it must be a whole number of milliseconds from 0 to 31536000000`
	for _, test := range []struct {
		body string
		at   string // "" for now
		err  string
	}{
		{``, "", ""},
		{`{"syncType": "full"}`, "", ""},
		{`{"runAt": "2026-11-24T04:51:00.250Z"}`, "2026-11-24T04:51:00.25Z", ""},
		{`{"syncType": "full", "runAt": "2026-11-24T05:51:00+01:00"}`, "2026-11-24T04:51:00Z", ""},
		{`{"runAt": "2026-11-24t04:51:00z"}`, "2026-11-24T04:51:00Z", ""},
		{`{"runAt": "2026-11-24T04:51:00.000000001Z"}`, "2026-11-24T04:51:00.001Z", ""}, // never before the time
		{`{"runAt": "2026-11-24T04:50:00.500Z"}`, "", ""},
		{`{"runAt": "2026-11-24T04:50:00.499Z"}`, "", ""}, // it has passed
		{`{"runAt": "1970-01-01T00:00:00Z"}`, "", ""},
		{`{"runAt": "2027-11-24T04:50:00.500Z"}`, "2027-11-24T04:50:00.5Z", ""},
		{`{"runAt": "2027-11-24T04:50:00.501Z"}`, "", `runAt was "2027-11-24T04:50:00.501Z"` + runAt},
		{`{"runAt": "2026-11-24"}`, "", `runAt was "2026-11-24"` + runAt},
		{`{"runAt": "2026-11-24T04:51:00"}`, "", `runAt was "2026-11-24T04:51:00"` + runAt},
		{`{"runAt": "2026-11-24T04:51:00,5Z"}`, "", `runAt was "2026-11-24T04:51:00,5Z"` + runAt},
		{`{"runAt": "2026-11-25T4:51:00Z"}`, "", `runAt was "2026-11-25T4:51:00Z"` + runAt},
		{`{"runAt": "2026-11-31T04:51:00Z"}`, "", `runAt was "2026-11-31T04:51:00Z"` + runAt},
		{`{"runAt": "tomorrow"}`, "", `runAt was "tomorrow"` + runAt},
		{`{"runAt": ""}`, "", `runAt was ""` + runAt},
		{`{"runAt": 1795495800000}`, "", `runAt was 1795495800000` + runAt},
		{`{"runAt": null}`, "", `runAt was null` + runAt},
		{`{"delay": 0}`, "", ""},
		{`{"delay": 1}`, "2026-11-24T04:50:00.501Z", ""},
		{`{"delay": 6e4}`, "2026-11-24T04:51:00.5Z", ""},
		{`{"delay": 31536000000}`, "2027-11-24T04:50:00.5Z", ""},
		{`{"delay": 31536000001}`, "", `delay was 31536000001` + delay},
		{`{"delay": -1}`, "", `delay was -1` + delay},
		{`{"delay": 0.5}`, "", `delay was 0.5` + delay},
		{`{"delay": "10m"}`, "", `delay was "10m"` + delay},
		{`{"delay": null}`, "", `delay was null` + delay},
		{`{"delay": 1e400}`, "", `delay was 1e400` + delay},
		{
			`{"delay": 1, "runAt": "2026-11-24T04:51:00Z"}`, "",
			`the field "delay" was given beside "runAt"; it must be given without that, or left out`,
		},
		{`{"delay": 1, "syncType": "no"}`, "", `syncType was "no"; it must be "incremental" or "full"`},
		{
			`{"when": 1}`, "", `the field "when" was not known; it must be "syncType" ("incremental" or "full") or ` +
				`"batchSize" (a whole number from 1 to 10000) or "runAt" (` + strings.TrimPrefix(runAt, "; it must be ") +
				`) or "delay" (` + strings.TrimPrefix(delay, "; it must be ") + `)`,
		},
	} {
		payload, at, err := def.DecodeTrigger([]byte(test.body), now)
		if test.err != "" {
			if wrong := new(tasks.FieldError); !errors.As(err, &wrong) || err.Error() != test.err {
				t.Errorf("%s: %v, want %s", test.body, err, test.err)
			}
			continue
		}
		if err != nil || payload.Validate() != nil {
			t.Errorf("%s: %v, %v", test.body, payload, err)
			continue
		}
		got := ""
		if !at.IsZero() {
			got = at.Format(time.RFC3339Nano)
		}
		if got != test.at {
			t.Errorf("%s: at %q, want %q", test.body, got, test.at)
		}
	}
}

// A task's payload has no such fields.
func TestStartFieldsAreNoPayload(t *testing.T) {
	t.Parallel()
	def, _ := codex.Registry().Lookup("user-sync")
	for _, body := range []string{`{"delay": 1}`, `{"runAt": "2026-11-24T04:51:00Z"}`} {
		if _, err := def.DecodePayload([]byte(body)); err == nil {
			t.Errorf("the payload %s was decoded", body)
		}
	}
	if fields := tasks.StartFields(); len(fields) != 2 || fields[0].Name != "runAt" || fields[0].Type != "string" ||
		fields[1].Name != "delay" || fields[1].Type != "integer" {
		t.Errorf("the fields are %+v", fields)
	}
}

type withRunAt struct {
	plain
	RunAt string `json:"runAt" allowed:"text"`
}

type withDelay struct {
	plain
	Delay int `json:"delay" allowed:"a number"`
}

// plain is a part of payloads.
type plain struct{}

func (*plain) UniqueKey() string { return "" }
func (*plain) Validate() error   { return nil }

func TestReservedFields(t *testing.T) {
	t.Parallel()
	for field, payload := range map[string]func() tasks.Payload{
		"runAt": func() tasks.Payload { return new(withRunAt) }, "delay": func() tasks.Payload { return new(withDelay) },
	} {
		_, err := tasks.NewRegistry(tasks.Definition{Name: "report", Title: "Report", NewPayload: payload})
		want := `job type "report": the payload must not have a field "` + field + `", which is a trigger's`
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
