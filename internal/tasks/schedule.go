// When the ticks of a schedule are: intervals that are aligned to the clock, and cron expressions.

package tasks

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Validate returns an error that says why the schedule is wrong. An interval must be aligned to the clock: whole seconds that
// divide a minute, whole minutes that divide an hour, or whole hours that divide a day. A cron expression must have five
// fields, and a next time.
func (s Schedule) Validate() error {
	switch {
	case s.Every != 0 && s.Cron != "":
		return fmt.Errorf("an interval (%s) and a cron expression (%q) are both set; set only one of them", s.Every, s.Cron)
	case s.Cron != "":
		if _, err := parseCron(s.Cron); err != nil {
			return fmt.Errorf("cron expression %q: %w; it must have five fields: minute, hour, day of month, month, day of week", s.Cron, err)
		}
		return nil
	case s.Every == 0:
		return nil
	}
	for _, unit := range []struct{ step, whole time.Duration }{
		{time.Hour, 24 * time.Hour}, {time.Minute, time.Hour}, {time.Second, time.Minute},
	} {
		if s.Every >= unit.step && s.Every <= unit.whole && s.Every%unit.step == 0 && unit.whole%s.Every == 0 {
			return nil
		}
	}
	return fmt.Errorf("an interval of %s cannot be aligned to the clock; it must be whole seconds that divide a minute, "+
		"whole minutes that divide an hour or whole hours that divide a day; use a cron expression for others", s.Every)
}

// Enabled reports whether the scheduler enqueues runs at all.
func (s Schedule) Enabled() bool { return s != Schedule{} }

// Spec returns the schedule as asynq's Scheduler takes it: as a cron expression, or as "@every" if the interval is below a
// minute, which cron cannot express.
func (s Schedule) Spec() string {
	switch {
	case s.Cron != "":
		return s.Cron
	case s.Every < time.Minute:
		return "@every " + s.Every.String()
	case s.Every < time.Hour:
		return fmt.Sprintf("*/%d * * * *", s.Every/time.Minute)
	case s.Every == time.Hour:
		return "0 * * * *"
	case s.Every < 24*time.Hour:
		return fmt.Sprintf("0 */%d * * *", s.Every/time.Hour)
	default:
		return "0 0 * * *"
	}
}

// Prev returns the time of the latest tick at or before t, in UTC. The schedule must be valid and enabled.
func (s Schedule) Prev(t time.Time) time.Time {
	t = t.UTC()
	if s.Cron == "" {
		return t.Truncate(s.Every)
	}
	parsed := mustParse(s.Cron)
	// cron only looks forward. So start far enough back to find one tick, then walk up to t.
	const farthest = 10 * 366 * 24 * time.Hour // 29 February can be 8 years ago
	for back := time.Hour; ; back = min(8*back, farthest) {
		tick := parsed.Next(t.Add(-back))
		if tick.IsZero() || tick.After(t) {
			if back == farthest {
				return time.Time{}
			}
			continue
		}
		for next := parsed.Next(tick); !next.IsZero() && !next.After(t); next = parsed.Next(next) {
			tick = next
		}
		return tick
	}
}

// Next returns the time of the first tick after t, in UTC. It returns the zero time if a cron expression has none within five
// years. The schedule must be valid and enabled.
func (s Schedule) Next(t time.Time) time.Time { return SpecNext(s.Spec(), t) }

// Interval returns the shortest time from one tick to the next: Every, or the shortest that the cron expression has from now
// on. It returns 0 if there are no ticks.
func (s Schedule) Interval(now time.Time) time.Duration {
	if s.Cron == "" {
		return s.Every
	}
	return specIntervals(s.Cron, now).shortest
}

// SpecEvery returns the interval of a spec (see Spec) if its ticks are evenly spaced, otherwise 0.
func SpecEvery(spec string, now time.Time) time.Duration {
	intervals := specIntervals(spec, now)
	if intervals.shortest != intervals.longest {
		return 0
	}
	return intervals.shortest
}

// SpecNext returns the time of the first tick of a spec (see Spec) after t, in UTC, or the zero time if there is none. Like a
// Schedule, it aligns "@every" to the clock.
func SpecNext(spec string, t time.Time) time.Time {
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		return time.Time{}
	}
	if fixed, ok := parsed.(cron.ConstantDelaySchedule); ok {
		return t.UTC().Truncate(fixed.Delay).Add(fixed.Delay)
	}
	return parsed.Next(t.UTC())
}

type intervalRange struct{ shortest, longest time.Duration }

func specIntervals(spec string, now time.Time) intervalRange {
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		return intervalRange{}
	}
	if fixed, ok := parsed.(cron.ConstantDelaySchedule); ok {
		return intervalRange{fixed.Delay, fixed.Delay}
	}
	midnight := func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }
	tick := parsed.Next(midnight(now.UTC()).Add(-1))
	first := tick
	var r intervalRange
	add := func(gap time.Duration) {
		if r.shortest == 0 || gap < r.shortest {
			r.shortest = gap
		}
		r.longest = max(r.longest, gap)
	}
	next := parsed.Next(tick)
	for ; !next.IsZero() && next.Before(midnight(first).Add(24*time.Hour)); next = parsed.Next(tick) {
		add(next.Sub(tick))
		tick = next
	}
	// Every day has its ticks at the same times, so only the gaps between days are left. 400 of them show weekends, months and
	// years.
	last := tick.Sub(midnight(tick))
	for range 400 {
		if next = parsed.Next(tick); next.IsZero() {
			break
		}
		add(next.Sub(tick))
		tick = midnight(next).Add(last)
	}
	return r
}

var fiveFields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// parseCron reads an expression of five fields. asynq's parser also takes "@every", which counts from the start of a scheduler,
// so that each scheduler would have ticks of its own.
func parseCron(expression string) (cron.Schedule, error) {
	if strings.HasPrefix(expression, "TZ=") || strings.HasPrefix(expression, "CRON_TZ=") {
		return nil, errors.New("it must not name a time zone: it is in UTC")
	}
	parsed, err := fiveFields.Parse(expression)
	if err != nil {
		return nil, err
	}
	if parsed.Next(time.Unix(0, 0).UTC()).IsZero() {
		return nil, errors.New("it never comes to pass")
	}
	return parsed, nil
}

func mustParse(expression string) cron.Schedule {
	parsed, err := parseCron(expression)
	if err != nil {
		panic(fmt.Sprintf("schedule was used without being validated: %v", err))
	}
	return parsed
}
