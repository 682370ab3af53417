// A tick must enqueue one run: this decides of which it was true, given when a scheduler was there to do it.

package main

import "time"

// tickLimit is how long after its instant, or after the first scheduler is back, a tick may be enqueued.
const tickLimit = 5 * time.Second

// tickFacts is what is known about the ticks of one job type. Ticks are named by their instant in milliseconds.
type tickFacts struct {
	every time.Duration
	// from and to are the time in which the ticks are judged.
	from, to time.Time
	// outages are the times in which no scheduler was there that could reach Redis: a union.
	outages []span
	// dealt is when a tick was first known to have been dealt with: its run was enqueued, or a run that waited served it.
	dealt map[int64]time.Time
	// enqueued is how often a tick's own run was enqueued.
	enqueued map[int64]int
}

// tickVerdict is what has become of them.
type tickVerdict struct {
	due int
	// overtaken is how many of those that fell into an outage were left out because a later one was overdue as well.
	overtaken int
	// overdue is how many were caught up on after an outage, and slowest how long after its end that took at most.
	overdue int
	slowest time.Duration

	missed, late, doubled []time.Time
}

// judge judges each tick whose time is up.
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
		at, dealt := f.dealt[tickTime.UnixMilli()]
		inOutage := served.After(tickTime)
		switch {
		case !dealt && inOutage && !tickTime.Add(f.every).After(deadline):
			v.overtaken++
		case !dealt:
			v.missed = append(v.missed, tickTime)
		case at.After(deadline):
			v.late = append(v.late, tickTime)
		case inOutage && at.After(served):
			v.overdue++
			v.slowest = max(v.slowest, at.Sub(served))
		}
	}
}

// servedFrom returns from when on, at the tick's instant or later, a scheduler was there for as long as a tick may take.
func (f tickFacts) servedFrom(tickTime time.Time) time.Time {
	served := tickTime
	for _, o := range f.outages {
		if o.to.After(served) && o.from.Before(served.Add(tickLimit)) {
			served = o.to
		}
	}
	return served
}
