package tasks

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// Validate returns an error with the reason when the schedule is not one of those that can be aligned to the clock:
// whole minutes that divide an hour, whole hours that divide a day, whole seconds that divide a minute, or a cron
// expression.
func (s Schedule) Validate() error {
	switch {
	case s.Every != 0 && s.Cron != "":
		return fmt.Errorf("an interval (%s) and a cron expression (%q) are both set; only one may be", s.Every, s.Cron)
	case s.Cron != "":
		if _, err := cron.ParseStandard(s.Cron); err != nil {
			return fmt.Errorf("cron expression %q: %w; it may have five fields: minute, hour, day of month, month, day of week", s.Cron, err)
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
	return fmt.Errorf("an interval of %s cannot be aligned to the clock; it may be whole seconds that divide a minute, "+
		"whole minutes that divide an hour or whole hours that divide a day; use a cron expression for others", s.Every)
}

// Enabled reports whether runs are enqueued by themselves at all.
func (s Schedule) Enabled() bool { return s != Schedule{} }

// Spec returns the schedule as asynq's Scheduler takes it: a cron expression, or "@every" for intervals below a
// minute, which cron expressions cannot say.
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

// Slot returns the instant of the latest tick at or before t. The schedule must be valid and enabled.
func (s Schedule) Slot(t time.Time) time.Time {
	t = t.UTC()
	if s.Cron == "" {
		return t.Truncate(s.Every)
	}
	parsed := mustParse(s.Cron)
	// cron only looks forward: start far enough back to find one activation, then walk up to t.
	for back := time.Hour; back < 10*366*24*time.Hour; back *= 8 {
		slot := parsed.Next(t.Add(-back))
		if slot.IsZero() || slot.After(t) {
			continue
		}
		for next := parsed.Next(slot); !next.IsZero() && !next.After(t); next = parsed.Next(next) {
			slot = next
		}
		return slot
	}
	return time.Time{}
}

// Interval returns the shortest time between two ticks that follow each other: Every, or what the cron expression
// comes to from now on. It is 0 when there are no ticks.
func (s Schedule) Interval(now time.Time) time.Duration {
	if s.Cron == "" {
		return s.Every
	}
	return specIntervals(s.Cron, now).shortest
}

// SpecEvery returns the interval of a spec (see Spec) whose ticks are evenly spaced, otherwise 0.
func SpecEvery(spec string, now time.Time) time.Duration {
	intervals := specIntervals(spec, now)
	if intervals.shortest != intervals.longest {
		return 0
	}
	return intervals.shortest
}

type intervalRange struct{ shortest, longest time.Duration }

func specIntervals(spec string, now time.Time) intervalRange {
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		return intervalRange{}
	}
	var r intervalRange
	previous := parsed.Next(now.UTC())
	// 100 ticks show every gap of the usual expressions, weekday ones among them, without much work.
	for range 100 {
		next := parsed.Next(previous)
		if previous.IsZero() || next.IsZero() {
			break
		}
		gap := next.Sub(previous)
		if r.shortest == 0 || gap < r.shortest {
			r.shortest = gap
		}
		r.longest = max(r.longest, gap)
		previous = next
	}
	return r
}

func mustParse(spec string) cron.Schedule {
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		panic(fmt.Sprintf("schedule was used without being validated: %v", err))
	}
	return parsed
}
