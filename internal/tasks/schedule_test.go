package tasks_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/codex-api/codex-jobs/internal/codex"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

// intervals are all those that can be aligned to the clock.
func intervals() []time.Duration {
	var list []time.Duration
	for _, n := range []int{1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30} {
		list = append(list, time.Duration(n)*time.Second, time.Duration(n)*time.Minute)
	}
	for _, n := range []int{1, 2, 3, 4, 6, 8, 12, 24} {
		list = append(list, time.Duration(n)*time.Hour)
	}
	return list
}

func TestScheduleValidate(t *testing.T) {
	t.Parallel()
	allowed := make(map[time.Duration]bool)
	for _, every := range intervals() {
		allowed[every] = true
		if err := (tasks.Schedule{Every: every}).Validate(); err != nil {
			t.Errorf("%s is refused: %v", every, err)
		}
	}
	if len(allowed) != 30 {
		t.Errorf("%d intervals, want 30", len(allowed))
	}
	refused := []time.Duration{
		1, time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond, -time.Minute, 61 * time.Second, 25 * time.Hour,
		48 * time.Hour, 7 * 24 * time.Hour, time.Minute + time.Millisecond, time.Hour + time.Minute, 90 * time.Minute, 1<<63 - 1,
	}
	for n := 1; n <= 24*60; n++ { // every other number of seconds up to a minute, minutes up to an hour and hours up to a day
		for _, every := range []time.Duration{time.Duration(n) * time.Second, time.Duration(n) * time.Minute} {
			if !allowed[every] {
				refused = append(refused, every)
			}
		}
	}
	for _, every := range refused {
		err := tasks.Schedule{Every: every}.Validate()
		if err == nil {
			t.Errorf("%s is allowed", every)
			continue
		}
		want := fmt.Sprintf("an interval of %s cannot be aligned to the clock; it must be whole seconds that divide a minute, "+
			"whole minutes that divide an hour or whole hours that divide a day; use a cron expression for others", every)
		if err.Error() != want {
			t.Errorf("%s: %v, want %s", every, err, want)
		}
	}
}

func TestScheduleValidateCron(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"* * * * *", "*/25 * * * *", "0 9 * * 1-5", "0 9 * * MON-FRI", "30 4 1,15 * *", "0 0 29 2 *", "5 4 * JAN sun", "0-59/7 8-17 * * *",
	} {
		if err := (tasks.Schedule{Cron: expression}).Validate(); err != nil {
			t.Errorf("%q is refused: %v", expression, err)
		}
	}
	for expression, reason := range map[string]string{
		"":                             "", // is no schedule at all
		"* * * *":                      "expected exactly 5 fields",
		"0 * * * * *":                  "expected exactly 5 fields",
		"60 * * * *":                   "above maximum",
		"* 24 * * *":                   "above maximum",
		"* * 0 * *":                    "below minimum",
		"* * * 13 *":                   "above maximum",
		"x * * * *":                    "x",
		"every day":                    "expected exactly 5 fields",
		"@every 25m":                   "five fields", // it would count from when each scheduler was started
		"@daily":                       "five fields",
		"TZ=Europe/Berlin 0 9 * * *":   "time zone",
		"CRON_TZ=Asia/Tokyo 0 9 * * *": "time zone",
		"TZ=0":                         "time zone",
		"0 0 30 2 *":                   "never",
		"0 0 31 4,6,9,11 *":            "never",
	} {
		err := tasks.Schedule{Cron: expression}.Validate()
		if reason == "" {
			if err != nil {
				t.Errorf("%q: %v", expression, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), fmt.Sprintf("cron expression %q", expression)) ||
			!strings.HasSuffix(err.Error(), "it must have five fields: minute, hour, day of month, month, day of week") {
			t.Errorf("%q: %v, want the reason %q", expression, err, reason)
		}
	}
	err := tasks.Schedule{Every: 20 * time.Minute, Cron: "* * * * *"}.Validate()
	if want := `an interval (20m0s) and a cron expression ("* * * * *") are both set; set only one of them`; err == nil || err.Error() != want {
		t.Errorf("both: %v, want %s", err, want)
	}
}

func TestScheduleEnabled(t *testing.T) {
	t.Parallel()
	for schedule, want := range map[tasks.Schedule]bool{
		{}:                         false,
		{Every: time.Minute}:       true,
		{Cron: "* * * * *"}:        true,
		codex.UserSync.Schedule:    true,
		codex.ProjectSync.Schedule: false,
	} {
		if got := schedule.Enabled(); got != want {
			t.Errorf("%+v: %v", schedule, got)
		}
	}
}

func TestScheduleSpec(t *testing.T) {
	t.Parallel()
	for every, want := range map[time.Duration]string{
		time.Second: "@every 1s", 30 * time.Second: "@every 30s", time.Minute: "*/1 * * * *", 20 * time.Minute: "*/20 * * * *",
		30 * time.Minute: "*/30 * * * *", time.Hour: "0 * * * *", 2 * time.Hour: "0 */2 * * *", 12 * time.Hour: "0 */12 * * *",
		24 * time.Hour: "0 0 * * *",
	} {
		if got := (tasks.Schedule{Every: every}).Spec(); got != want {
			t.Errorf("%s: %q, want %q", every, got, want)
		}
	}
	if got := (tasks.Schedule{Cron: "0 9 * * 1-5"}).Spec(); got != "0 9 * * 1-5" {
		t.Errorf("a cron expression became %q", got)
	}
}

// What asynq's Scheduler makes of a spec fires at the schedule's tick times and at no other time, also over the end of a
// year and the 29th of February.
func TestSpecFiresAtTickTimes(t *testing.T) {
	t.Parallel()
	var schedules []tasks.Schedule
	for _, every := range intervals() {
		if every >= time.Minute { // those below have a rhythm of their own, see Spec
			schedules = append(schedules, tasks.Schedule{Every: every})
		}
	}
	for _, expression := range []string{"*/25 * * * *", "0 9 * * 1-5", "30 4 1,15 * *", "59 23 31 12 *", "*/5 9-17 * * *"} {
		schedules = append(schedules, tasks.Schedule{Cron: expression})
	}
	berlin := time.FixedZone("Berlin", 2*60*60)
	for _, schedule := range schedules {
		t.Run(schedule.Spec(), func(t *testing.T) {
			t.Parallel()
			parsed, err := cron.ParseStandard(schedule.Spec())
			if err != nil {
				t.Fatal(err)
			}
			for _, start := range []time.Time{
				time.Date(2027, 12, 31, 21, 3, 7, 5, time.UTC), time.Date(2028, 2, 28, 20, 59, 59, 0, time.UTC),
			} {
				last := start
				for tick := parsed.Next(start); tick.Before(start.Add(30 * time.Hour)); tick = parsed.Next(tick) {
					for _, at := range []time.Time{tick, tick.Add(time.Millisecond), tick.Add(59 * time.Second), tick.In(berlin)} {
						if prev := schedule.Prev(at); !prev.Equal(tick) || prev.Location() != time.UTC {
							t.Fatalf("the tick before %s is at %s, but %s fires at %s", at, prev, schedule.Spec(), tick)
						}
					}
					if prev := schedule.Prev(tick.Add(-1)); prev.Equal(tick) || last != start && !prev.Equal(last) {
						t.Fatalf("the tick before %s is at %s, but %s fired at %s", tick, prev, schedule.Spec(), last)
					}
					if schedule.Every > 0 && last != start && tick.Sub(last) != schedule.Every {
						t.Fatalf("it fires at %s and %s", last, tick)
					}
					last = tick
				}
			}
		})
	}
}

func TestPrevAndNext(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, test := range []struct {
		schedule       tasks.Schedule
		at, prev, next string
	}{
		{tasks.Schedule{Every: 20 * time.Second}, "2026-01-01T00:00:19.999Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z"},
		{tasks.Schedule{Every: 20 * time.Second}, "2026-01-01T00:00:20Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"},
		{tasks.Schedule{Every: 20 * time.Minute}, "2026-01-01T00:19:59.999Z", "2026-01-01T00:00:00Z", "2026-01-01T00:20:00Z"},
		{tasks.Schedule{Every: 20 * time.Minute}, "2026-01-01T01:19:59+01:00", "2026-01-01T00:00:00Z", "2026-01-01T00:20:00Z"},
		{tasks.Schedule{Every: 24 * time.Hour}, "2026-01-01T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{tasks.Schedule{Every: 24 * time.Hour}, "2026-01-02T00:59:59+01:00", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{tasks.Schedule{Cron: "0 9 * * 1-5"}, "2026-11-23T08:59:59Z", "2026-11-20T09:00:00Z", "2026-11-23T09:00:00Z"}, // Monday, Friday
		{tasks.Schedule{Cron: "0 9 * * 1-5"}, "2026-11-23T09:59:59+01:00", "2026-11-20T09:00:00Z", "2026-11-23T09:00:00Z"},
		{tasks.Schedule{Cron: "0 9 * * 1-5"}, "2026-11-23T09:00:00Z", "2026-11-23T09:00:00Z", "2026-11-24T09:00:00Z"},
		{tasks.Schedule{Cron: "0 0 1 1 *"}, "2026-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{tasks.Schedule{Cron: "0 0 29 2 *"}, "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{tasks.Schedule{Cron: "0 0 29 2 *"}, "2026-01-01T00:00:00Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{tasks.Schedule{Cron: "0 0 29 2 *"}, "2028-02-28T23:59:59Z", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
		{tasks.Schedule{Cron: "0 0 29 2 *"}, "2096-03-01T00:00:00Z", "2096-02-29T00:00:00Z", ""}, // 2100 has none
		{tasks.Schedule{Cron: "0 0 29 2 *"}, "2104-02-28T00:00:00Z", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"},
	} {
		if got := test.schedule.Prev(at(test.at)); !got.Equal(at(test.prev)) {
			t.Errorf("%+v: before %s: %s, want %s", test.schedule, test.at, got, test.prev)
		}
		var next time.Time
		if test.next != "" {
			next = at(test.next)
		}
		if got := test.schedule.Next(at(test.at)); !got.Equal(next) {
			t.Errorf("%+v: after %s: %s, want %s", test.schedule, test.at, got, next)
		}
	}
	if got := tasks.SpecNext("not a spec", time.Now()); !got.IsZero() {
		t.Errorf("after now, of no spec: %s", got)
	}
}

func TestInterval(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		schedule tasks.Schedule
		shortest time.Duration
		every    time.Duration // of its spec
	}{
		{tasks.Schedule{}, 0, 0},
		{tasks.Schedule{Cron: "* * * * *"}, time.Minute, time.Minute},
		{tasks.Schedule{Cron: "*/20 * * * *"}, 20 * time.Minute, 20 * time.Minute},
		{tasks.Schedule{Cron: "7-59/20 * * * *"}, 20 * time.Minute, 20 * time.Minute},
		{tasks.Schedule{Cron: "*/25 * * * *"}, 10 * time.Minute, 0},
		{tasks.Schedule{Cron: "0 9 * * *"}, day, day},
		{tasks.Schedule{Cron: "0 9 * * 1"}, 7 * day, 7 * day},
		{tasks.Schedule{Cron: "0 9 * * 1-5"}, day, 0},
		{tasks.Schedule{Cron: "0 0 1 * *"}, 28 * day, 0},
		{tasks.Schedule{Cron: "0 0 1 1 *"}, 365 * day, 0},
		{tasks.Schedule{Cron: "0 0 */2 * *"}, day, 0},
		{tasks.Schedule{Cron: "0 9,17 * * *"}, 8 * time.Hour, 0},
		{tasks.Schedule{Cron: "0 6,18 * * *"}, 12 * time.Hour, 12 * time.Hour},
		{tasks.Schedule{Cron: "59 23 * * 1,2"}, day, 0},
		// More ticks in a row than one may want to look at.
		{tasks.Schedule{Cron: "* 9-17 * * *"}, time.Minute, 0},
		{tasks.Schedule{Cron: "*/5 9-17 * * *"}, 5 * time.Minute, 0},
		{tasks.Schedule{Cron: "* * * * 1-5"}, time.Minute, 0},
		{tasks.Schedule{Cron: "*/5 * * 1-11 *"}, 5 * time.Minute, 0},
	} {
		for hour := range 24 { // it does not depend on when one asks
			now := time.Date(2026, 11, 23, hour, 1, 0, 0, time.UTC)
			if got := test.schedule.Interval(now); got != test.shortest {
				t.Errorf("%+v at %s: the shortest interval is %s, want %s", test.schedule, now, got, test.shortest)
			}
			if !test.schedule.Enabled() {
				continue
			}
			if got := tasks.SpecEvery(test.schedule.Spec(), now); got != test.every {
				t.Errorf("%s at %s: every %s, want %s", test.schedule.Spec(), now, got, test.every)
			}
		}
	}
	for _, every := range intervals() {
		schedule := tasks.Schedule{Every: every}
		now := time.Date(2026, 11, 23, 17, 1, 0, 0, time.UTC)
		if got := schedule.Interval(now); got != every {
			t.Errorf("%s: the interval is %s", every, got)
		}
		if got := tasks.SpecEvery(schedule.Spec(), now); got != every {
			t.Errorf("%s: every %s", schedule.Spec(), got)
		}
	}
	if got := tasks.SpecEvery("not a spec", time.Now()); got != 0 {
		t.Errorf("of no spec: %s", got)
	}
}
