package tasks_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/tasks"
)

func TestRunIDRoundTrip(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("Berlin", 2*60*60)
	at := time.Date(2026, 11, 23, 12, 20, 0, 123_456_789, berlin)
	reference := at.Truncate(time.Millisecond).UTC()
	tick, trigger := tasks.TickID("user-sync", at), tasks.TriggerID("user-sync", at)
	for _, id := range []tasks.RunID{tick, trigger, tasks.TickID("a1-b2", time.UnixMilli(0))} {
		parsed, err := tasks.ParseRunID(id.String())
		if err != nil || parsed != id {
			t.Errorf("%s: parsed as %+v, %v", id, parsed, err)
		}
	}
	if tick.String() != "1795429200123:user-sync" || tick.Reference != reference || !tick.Scheduled() {
		t.Errorf("the tick's ID is %s, %+v", tick, tick)
	}
	if !strings.HasPrefix(trigger.String(), tick.String()+":") || trigger.Reference != reference || trigger.Scheduled() {
		t.Errorf("the trigger's ID is %s, %+v", trigger, trigger)
	}
	if other := tasks.TickID("user-sync", at.UTC()); other != tick {
		t.Errorf("another scheduler's ID is %s, not %s", other, tick)
	}
}

func TestTriggerIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	now := time.Now()
	for range 1000 {
		seen[tasks.TriggerID("user-sync", now).String()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 triggers of one millisecond have %d IDs", len(seen))
	}
}

func TestRunIDsSortByTime(t *testing.T) {
	t.Parallel()
	var ids []string
	at := time.Date(2001, 9, 9, 1, 46, 40, 0, time.UTC) // from here on the milliseconds have 13 digits
	for i := range 50 {
		ids = append(ids, tasks.TickID("user-sync", at).String(), tasks.TriggerID("user-sync", at).String())
		at = at.Add(time.Duration(i*i*i)*time.Hour + time.Millisecond)
	}
	if !slices.IsSorted(ids) {
		t.Errorf("not sorted: %v", ids)
	}
}

func TestParseRunIDRefuses(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"", ":", "user-sync", ":user-sync", "x:user-sync", "1.5:user-sync", "-1:user-sync", "1:user-sync:", " 1:user-sync", "1:", "1",
		"1:User-Sync", "1:user_sync", "1:-user", "1:user-", "99999999999999999999:user-sync", "+1:user-sync", "01:user-sync", "0x1:user-sync",
		"1:user-sync:a:b", "user-sync:1",
		"c5a9b8f0-1e9c-4e0e-8d3b-5b1f0c7d9e2a", strings.Repeat("x", 5000),
	} {
		parsed, err := tasks.ParseRunID(id)
		if err == nil {
			t.Errorf("%q: parsed as %+v", id, parsed)
			continue
		}
		if !strings.Contains(err.Error(), "is not of the form <milliseconds>:<job> or <milliseconds>:<job>:<suffix>") || len(err.Error()) > 200 {
			t.Errorf("%q: %v", id, err)
		}
	}
}
