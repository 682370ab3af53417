// The judgement of the ticks: each must enqueue one run, if a scheduler was there to do it.

package main

import "time"

// tickLimit is how long after its time, or after the return of a scheduler, a tick may be enqueued.
const tickLimit = 5 * time.Second

// tickFacts is what is known about the ticks of one job type. The key of a tick is its time in milliseconds.
type tickFacts struct {
	every time.Duration
	// from and to are the time in which the ticks are judged.
	from, to time.Time
	// outages are the times in which no scheduler could reach Redis: a union.
	outages []span
	// handled is when a tick was first known to be handled: its run was enqueued, or a waiting run served it.
	handled map[int64]time.Time
	// enqueued is how often a tick's own run was enqueued.
	enqueued map[int64]int
}

// tickVerdict is the judgement of the ticks.
type tickVerdict struct {
	due int
	// overtaken is how many were left out, because a later one was overdue after the same outage.
	overtaken int
	// overdue is how many were enqueued after an outage, and slowest the longest time that took after its end.
	overdue int
	slowest time.Duration

	missed, late, doubled []time.Time
}

// judge judges each tick that must be enqueued by now.
func (f tickFacts) judge() tickVerdict {
	var v tickVerdict
	for tickTime := f.from.Truncate(f.every).Add(f.every); ; tickTime = tickTime.Add(f.every) {
		served := f.servedFrom(tickTime)
		deadline := served.Add(tickLimit)
		if deadline.After(f.to) {
			return v
		}
		v.due++
		if f.enqueued[tickTime.UnixMilli()] > 1 {
			v.doubled = append(v.doubled, tickTime)
		}
		at, handled := f.handled[tickTime.UnixMilli()]
		inOutage := served.After(tickTime)
		switch {
		case !handled && inOutage && !tickTime.Add(f.every).After(deadline):
			v.overtaken++
		case !handled:
			v.missed = append(v.missed, tickTime)
		case at.After(deadline):
			v.late = append(v.late, tickTime)
		case inOutage && at.After(served):
			v.overdue++
			v.slowest = max(v.slowest, at.Sub(served))
		}
	}
}

// servedFrom returns the first instant, at the tick's time or later, from which a scheduler was there for tickLimit.
func (f tickFacts) servedFrom(tickTime time.Time) time.Time {
	served := tickTime
	for _, o := range f.outages {
		if o.to.After(served) && o.from.Before(served.Add(tickLimit)) {
			served = o.to
		}
	}
	return served
}
