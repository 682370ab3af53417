package api_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/codex"
)

// FuzzRequestBodies sends any body to every route that takes one. A refusal is JSON with a message, and changes nothing. An
// accepted body is one that the contract allows.
func FuzzRequestBodies(f *testing.F) {
	paths := []string{"/jobs/trigger/user-sync", "/jobs/trigger/issue-sync", "/jobs/pause", "/jobs/resume", "/jobs/cleanup",
		"/jobs/retry-failed", "/jobs/cancel-waiting"}
	for i := range paths {
		for _, seed := range []string{
			``, `{}`, `null`, `[]`, `"full"`, `{"syncType":"full"}`, `{"syncType":"full","batchSize":10}`, `{"syncType":null}`, `{"syncType":""}`, `{"batchSize":1e9}`,
			`{"job":"user-sync"}`, `{"job":"all"}`, `{"job":7}`, `{"gracePeriodHours":48}`, `{"gracePeriodHours":-1}`, `{"gracePeriodHours":0.5}`,
			`{"version":1}`, `{"syncType":"full"} {}`, `{"delay":600000}`, `{"delay":-1}`,
			`{"runAt":"2126-11-24T04:50:00Z"}`, `{"runAt":"2026-11-24T04:50:00Z","delay":1}`, `{"a":`, "\x00\xff", strings.Repeat("[", 10_000), strings.Repeat(" ", 70_000),
		} {
			f.Add(uint8(i), []byte(seed))
		}
	}
	b := setup(f)
	if err := b.jobs.Register(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		path := paths[int(i)%len(paths)]
		keys := func() []string {
			list, err := b.rdb.Keys(t.Context(), "*").Result()
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(list)
			return list
		}
		before := keys()
		a := b.post(t, path, string(body))
		switch a.status {
		case 200:
			object := make(map[string]any)
			if len(strings.TrimSpace(string(body))) > 0 && json.Unmarshal(body, &object) != nil {
				t.Errorf("%s took %q", path, body)
			}
			for name := range object {
				if !slices.Contains([]string{"syncType", "batchSize", "runAt", "delay", "job", "gracePeriodHours"}, name) {
					t.Errorf("%s took the field %q of %q", path, name, body)
				}
			}
			if strings.HasPrefix(path, "/jobs/trigger/") {
				if _, _, err := codex.UserSync.DecodeTrigger(body, time.Now()); err != nil {
					t.Errorf("%s took %q: %v", path, body, err)
				}
			}
		case 400, 413:
			var refused struct {
				Success *bool
				Message string
			}
			if json.Unmarshal([]byte(a.text), &refused) != nil || refused.Success == nil || *refused.Success || refused.Message == "" || len(a.text) > 2000 {
				t.Errorf("%s refused %q with %s", path, body, a.text)
			}
			if after := keys(); !slices.Equal(before, after) {
				t.Errorf("%s refused %q and changed Redis from %v to %v", path, body, before, after)
			}
		default:
			t.Errorf("%s answered %q with %d %s", path, body, a.status, a.text)
		}
	})
}
