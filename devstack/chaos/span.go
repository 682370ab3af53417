// Times in which something was away: most promises hold only while a server or a process is there.

package main

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// span is the time from one instant up to another.
type span struct{ from, to time.Time }

// touches reports whether one of the spans has an instant in common with the time from one instant to another.
func touches(spans []span, from, to time.Time) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return !s.from.After(to) && !s.to.Before(from) })
}

// union returns the times that are in any of the spans: in order, and apart from each other.
func union(spans ...span) []span {
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b span) int { return a.from.Compare(b.from) })
	var merged []span
	for _, s := range sorted {
		if last := len(merged) - 1; last >= 0 && !s.from.After(merged[last].to) {
			if s.to.After(merged[last].to) {
				merged[last].to = s.to
			}
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// intersection returns the times that are in both lists, each of which is a union.
func intersection(a, b []span) []span {
	var common []span
	for _, s := range a {
		for _, t := range b {
			from, to := s.from, s.to
			if t.from.After(from) {
				from = t.from
			}
			if t.to.Before(to) {
				to = t.to
			}
			if from.Before(to) {
				common = append(common, span{from, to})
			}
		}
	}
	return union(common...)
}

// prolonged returns the spans, each of which ends so much later.
func prolonged(spans []span, by time.Duration) []span {
	longer := slices.Clone(spans)
	for i := range longer {
		longer[i].to = longer[i].to.Add(by)
	}
	return longer
}

// chronicle keeps the times in which something was the case, such as that a process was down. It is safe for concurrent
// use.
type chronicle struct {
	mu   sync.Mutex
	open map[string]time.Time
	past map[string][]span
}

func newChronicle() *chronicle {
	return &chronicle{open: make(map[string]time.Time), past: make(map[string][]span)}
}

// set says that something is the case from now on, or no longer.
func (c *chronicle) set(what string, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	began, was := c.open[what]
	switch {
	case is && !was:
		c.open[what] = now
	case !is && was:
		delete(c.open, what)
		c.past[what] = append(c.past[what], span{began, now})
	}
}

// add says that something was the case.
func (c *chronicle) add(what string, s span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past[what] = append(c.past[what], s)
}

// ofAll returns when any of those things was the case whose names end with the suffix.
func (c *chronicle) ofAll(suffix string) []span {
	c.mu.Lock()
	var names []string
	for name := range c.past {
		names = append(names, name)
	}
	for name := range c.open {
		names = append(names, name)
	}
	c.mu.Unlock()
	var all []span
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			all = append(all, c.of(name)...)
		}
	}
	return union(all...)
}

// of returns when something was the case. What still is ends now.
func (c *chronicle) of(what string) []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := slices.Clone(c.past[what])
	if began, is := c.open[what]; is {
		spans = append(spans, span{began, time.Now()})
	}
	return union(spans...)
}
