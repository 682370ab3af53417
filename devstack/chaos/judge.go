// The judge compares the record with the promises.

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/codex-api/codex-jobs/internal/syncrun"
	"github.com/codex-api/codex-jobs/internal/tasks"
)

const (
	// answerLimit is how long an answer may take: the promised 2 s, and some more for a busy machine.
	answerLimit = 3 * time.Second
	// reconnectTime is how long after the return of a server the API may still say that it is away.
	reconnectTime = 3 * time.Second
	// waitTime is how long a run still counts as waiting after it went on.
	waitTime = 5 * time.Second
	// otherKeys is more than the number of keys besides one for each run that is kept.
	otherKeys = 100
)

// judge makes the report. All processes have ended, so the record no longer changes.
func (c *chaos) judge(ctx context.Context) (*report, error) {
	r := &report{seed: c.seed, length: c.length, settled: c.settled, faults: c.faults}
	c.judgeTicks(r)
	c.judgeRuns(r)
	c.judgeAnswers(r)
	if err := c.judgeDocuments(ctx, r); err != nil {
		return nil, err
	}
	if err := c.judgeKeys(ctx, r); err != nil {
		return nil, err
	}
	r.ranges, r.rescued, r.errorLines = c.record.ranges, c.record.rescued, c.record.errors
	r.breaches = c.record.breaches
	return r, nil
}

// withoutScheduler returns the times in which no scheduler could reach Redis.
func (c *chaos) withoutScheduler() []span {
	var none []span
	for i, name := range roleNamed(schedulerRole).names() {
		away := union(append(c.chronicle.of(downName(name)), c.chronicle.of(goneName(wayName(name, redisName)))...)...)
		if i == 0 {
			none = away
		} else {
			none = intersection(none, away)
		}
	}
	return none
}

func roleNamed(name string) role {
	i := slices.IndexFunc(roles, func(r role) bool { return r.name == name })
	return roles[i]
}

func (c *chaos) judgeTicks(r *report) {
	outages := c.withoutScheduler()
	for _, job := range slices.Sorted(maps.Keys(intervals)) {
		facts := tickFacts{
			every: intervals[job], from: c.ticking.from, to: c.ticking.to, outages: outages,
			handled: make(map[int64]time.Time), enqueued: make(map[int64]int),
		}
		note := func(tick string, at time.Time) {
			if id, err := tasks.ParseRunID(tick); err == nil && id.Job == job {
				ms := id.Reference.UnixMilli()
				if before, ok := facts.handled[ms]; !ok || at.Before(before) {
					facts.handled[ms] = at
				}
			}
		}
		for tick, at := range c.record.handled {
			note(tick, at)
		}
		// The log line of a scheduler that was killed may be missing. Then the product's key says that the tick was handled,
		// and a run must have waited to serve it.
		for tick, at := range c.record.recorded {
			if c.record.someRunWaited(job, at) {
				note(tick, at)
			}
		}
		for _, run := range c.record.runs {
			if run.id.Job == job && run.id.Scheduled() {
				facts.enqueued[run.id.Reference.UnixMilli()] = len(run.enqueued)
			}
		}
		v := facts.judge()
		r.ticks.due += v.due
		r.ticks.overtaken += v.overtaken
		r.ticks.overdue += v.overdue
		r.ticks.slowest = max(r.ticks.slowest, v.slowest)
		r.ticks.missed = append(r.ticks.missed, v.missed...)
		r.ticks.late = append(r.ticks.late, v.late...)
		r.ticks.doubled = append(r.ticks.doubled, v.doubled...)
		for what, times := range map[string][]time.Time{"was missed": v.missed, "came too late": v.late, "was enqueued twice": v.doubled} {
			for _, tickTime := range times {
				c.record.breach(promiseTicks, "the tick of %s at %s %s%s", job, clock(tickTime), what, c.record.tickDetails(job, tickTime))
			}
		}
	}
}

// someRunWaited reports whether a run of the kind of the ticks waited at that time: it had been enqueued, and began later.
func (r *record) someRunWaited(job string, at time.Time) bool {
	const blur = time.Second // events and lines of logs come a little late
	for _, run := range r.runs {
		if run.id.Job != job || run.kind == tasks.SyncFull || len(run.enqueued) == 0 || run.enqueued[0].After(at.Add(blur)) {
			continue
		}
		if len(run.begun) == 0 || slices.MinFunc(run.begun, time.Time.Compare).After(at.Add(-blur)) {
			return true
		}
	}
	return false
}

func (r *record) tickDetails(job string, tickTime time.Time) string {
	id := tasks.TickID(job, tickTime).String()
	text := ""
	if at, ok := r.handled[id]; ok {
		text += ", handled at " + clock(at)
	}
	if at, ok := r.recorded[id]; ok {
		text += ", recorded by the product at " + clock(at)
	}
	if run := r.runs[id]; run != nil {
		for _, at := range run.enqueued {
			text += ", enqueued at " + clock(at)
		}
	}
	return text
}

func (c *chaos) judgeRuns(r *report) {
	for _, id := range slices.Sorted(maps.Keys(c.record.runs)) {
		run := c.record.runs[id]
		if len(run.enqueued) > 1 && !run.id.Scheduled() { // ticks are judged as such
			r.runs.twice++
			c.record.breach(promiseRuns, "%s was enqueued at %s and at %s", id, clock(run.enqueued[0]), clock(run.enqueued[1]))
		}
		if len(run.ends) == 0 {
			r.runs.lost++
			c.record.breach(promiseRuns, "%s was lost: %s", id, run.history())
			continue
		}
		if len(run.ends) > 1 {
			r.runs.twice++
			c.record.breach(promiseRuns, "%s has ended more than once: %s", id, run.history())
		}
		end := run.ends[0]
		if len(run.enqueued) > 0 {
			r.runs.slowest = max(r.runs.slowest, end.seen.Sub(run.enqueued[0]))
		}
		if end.retried > 0 {
			c.record.charged[fmt.Sprintf("%s: attempt %d", id, end.retried+1)] = true
		}
		if end.state != asynq.TaskStateCompleted {
			r.runs.failed++
			c.record.breach(promiseRuns, "%s failed: %s", id, end.reason)
			continue
		}
		r.runs.completed++
		c.judgeResult(run)
	}
	r.charged, r.announced = len(c.record.charged), len(c.record.announced)
	for _, attempt := range slices.Sorted(maps.Keys(c.record.charged)) {
		subject, _, _ := strings.Cut(attempt, ": ")
		why := slices.DeleteFunc(slices.Clone(c.record.announced), func(text string) bool { return !strings.HasPrefix(text, subject+": ") })
		c.record.breach(promiseAttempts, "%s; the logs say: %s", attempt, strings.Join(why, "; "))
	}
	for _, a := range c.record.acknowledged {
		r.acknowledged++
		if a.coalesced {
			r.coalesced++
		}
		c.judgeAcknowledged(r, a)
	}
}

// history describes what was seen of the run.
func (r *seenRun) history() string {
	var seen []string
	for _, at := range r.enqueued {
		seen = append(seen, "enqueued at "+clock(at))
	}
	for _, at := range r.begun {
		seen = append(seen, "begun at "+clock(at))
	}
	for _, end := range r.ends {
		seen = append(seen, fmt.Sprintf("%s at %s (seen at %s)", end.state, clock(end.at), clock(end.seen)))
	}
	return strings.Join(seen, ", ")
}

// judgeResult checks the result of a completed run.
func (c *chaos) judgeResult(run *seenRun) {
	i := slices.IndexFunc(collections, func(k collection) bool { return k.job == run.id.Job })
	all := int64(collections[i].count)
	var result tasks.SyncResult
	err := json.Unmarshal(run.ends[0].result, &result)
	switch {
	case err != nil:
		c.record.breach(promiseRuns, "%s completed with the result %q", run.id, run.ends[0].result)
	case !result.Success || result.Errors != 0 || result.UsersUpdated != result.UsersProcessed || result.UsersProcessed > all,
		run.kind == tasks.SyncFull && result.UsersProcessed != all:
		c.record.breach(promiseRecords, "%s (%s), of %d records, completed with %s: %s", run.id, run.kind, all, run.ends[0].result, run.history())
	}
}

// judgeAcknowledged checks that the run of a trigger's answer served it.
func (c *chaos) judgeAcknowledged(r *report, a acknowledged) {
	trigger := fmt.Sprintf("%s, which %s acknowledged at %s (coalesced: %t)", a.id, a.api, clock(a.answered), a.coalesced)
	run := c.record.runs[a.id]
	switch {
	case run == nil:
		r.runs.lost++
		c.record.breach(promiseRuns, "%s, was never seen", trigger)
	case run.kind != "" && run.kind != a.kind:
		c.record.breach(promiseRuns, "%s, is %s, not %s", trigger, run.kind, a.kind)
	case a.coalesced && len(run.begun) > 0 && slices.MinFunc(run.begun, time.Time.Compare).Before(a.asked):
		c.record.breach(promiseRuns, "%s, had begun before it was asked for at %s: %s", trigger, clock(a.asked), run.history())
	}
}

func (c *chaos) judgeAnswers(r *report) {
	for _, a := range c.record.answers {
		until := a.asked.Add(a.took)
		if touches(c.chronicle.of(downName(a.api)), a.asked, until) {
			continue // no API was there
		}
		r.answers.all++
		if a.took > r.answers.slowest {
			r.answers.slowest, r.answers.slowestTo = a.took, a.what
		}
		what := fmt.Sprintf("%s, %s at %s", a.api, a.what, clock(a.asked))
		if a.took > answerLimit {
			r.answers.late++
			c.record.breach(promiseAnswers, "%s: took %s", what, a.took.Round(time.Millisecond))
		}
		switch {
		case a.err != nil:
			r.answers.failed++
			c.record.breach(promiseAnswers, "%s: %v", what, a.err)
		case a.status == http.StatusServiceUnavailable:
			r.answers.refused++
			if !c.excused(a) {
				c.record.breach(promiseAnswers, "%s: answered 503 although its servers were there", what)
			}
		case a.status != http.StatusOK:
			r.answers.failed++
			c.record.breach(promiseAnswers, "%s: answered %d", what, a.status)
		}
	}
}

// excused reports whether an API could not serve a request, because it could not reach a server, or not in time. The health also
// says so while a run waits for MongoDB, and so while a worker cannot reach that.
func (c *chaos) excused(a answer) bool {
	if touches(c.chronicle.of(slowName), a.asked, a.asked.Add(a.took)) {
		return true
	}
	servers := []string{redisName}
	if strings.HasSuffix(a.what, "/health") {
		servers = append(servers, mongoName)
		waits := append(c.chronicle.ofAll(goneName(wayName("", mongoName))), c.chronicle.ofAll(troubledName(wayName("", mongoName)))...)
		if touches(prolonged(waits, reconnectTime+waitTime), a.asked, a.asked.Add(a.took)) {
			return true
		}
	}
	return slices.ContainsFunc(servers, func(server string) bool {
		way := wayName(a.api, server)
		bad := append(c.chronicle.of(goneName(way)), c.chronicle.of(troubledName(way))...)
		return touches(prolonged(bad, reconnectTime), a.asked, a.asked.Add(a.took))
	})
}

// judgeDocuments checks that each record is as fresh as the completed runs should have made it.
func (c *chaos) judgeDocuments(ctx context.Context, r *report) error {
	for _, k := range collections {
		stamps, err := c.documents.stamps(ctx, k)
		if err != nil {
			return err
		}
		if len(stamps) != k.count {
			c.record.breach(promiseRecords, "of %d %s there are %d", k.count, k.name, len(stamps))
		}
		var least time.Time // a stamp must not be older
		var since string
		for id, run := range c.record.runs {
			if run.id.Job != k.job || len(run.ends) == 0 || run.ends[0].state != asynq.TaskStateCompleted {
				continue
			}
			reference := run.id.Reference
			if run.kind != tasks.SyncFull { // an incremental run leaves out fresh records
				reference = reference.Add(-freshness[k.job] + time.Millisecond)
			}
			if reference.After(least) {
				least, since = reference, id
			}
		}
		for id, stamp := range stamps {
			switch {
			case stamp.After(time.Now().Add(2 * syncrun.MaxClockError)):
				r.stale++
				c.record.breach(promiseRecords, "%s of the %s still has the stamp of a clock that was wrong: %s", id, k.name, clock(stamp))
			case stamp.Before(least):
				r.stale++
				c.record.breach(promiseRecords, "%s of the %s was synchronised at %s, not since %s as %s should have seen to",
					id, k.name, clock(stamp), clock(least), since)
			default:
				r.fresh++
			}
		}
	}
	return nil
}

// judgeKeys looks for keys that ended runs left behind.
func (c *chaos) judgeKeys(ctx context.Context, r *report) error {
	keys, err := c.watcher.keys(ctx)
	if err != nil {
		return err
	}
	slices.Sort(keys)
	r.keys = len(keys)
	runs := 0
	for _, key := range keys {
		switch {
		case strings.HasPrefix(key, "codex-jobs:") && strings.Contains(key, "}:waiting"):
			id, err := c.watcher.claimed(ctx, key)
			if err != nil {
				return err
			}
			// The process that wanted to enqueue it was killed, or lost Redis, and acknowledged nothing. The next run of its
			// kind takes its place.
			if c.record.runs[id] == nil && !c.record.isAcknowledged(id) {
				r.abandoned++
				continue
			}
			c.record.breach(promiseKeys, "%s of %s", key, id)
		case strings.HasPrefix(key, "codex-jobs:") && (strings.Contains(key, "}:run:") || strings.Contains(key, "}:ranges:")),
			strings.Contains(key, ":ranges}:t:"):
			c.record.breach(promiseKeys, "%s", key)
		case strings.Contains(key, "}:t:"):
			runs++
		}
	}
	most := 2 * keptRuns * len(collections) // completed and, if there are, failed
	if runs > most {
		c.record.breach(promiseKeys, "runs are kept: %d, of which %d should be", runs, most)
	}
	if others := len(keys) - runs; others > otherKeys {
		c.record.breach(promiseKeys, "there are %d keys besides those of runs, among them %s", others,
			strings.Join(keys[:cmp.Or(min(len(keys), 20), 1)], ", "))
	}
	return nil
}
