// The plan of the faults. It is made beforehand, from the seed alone, so that it can be repeated.

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// faultKind is a way to break something, in words for people.
type faultKind string

// The kinds of faults.
const (
	killProcess    faultKind = "kill -9, restart"
	stopProcess    faultKind = "SIGTERM, restart"
	rollProcesses  faultKind = "rolling restart"
	freezeProcess  faultKind = "SIGSTOP, SIGCONT"
	killSchedulers faultKind = "kill -9 all schedulers"
	killRedis      faultKind = "kill -9 Redis, restart"
	refuseWrites   faultKind = "Redis refuses writes"
	refuse         faultKind = "server refuses connections"
	hang           faultKind = "server does not answer"
	slowDown       faultKind = "server answers late"
	cutOff         faultKind = "process cut off a server"
	cutConnections faultKind = "connections cut"
	wrongClock     faultKind = "a clock was an hour ahead"
)

// deck says how often each kind is drawn before the deck is shuffled again.
var deck = []struct {
	kind  faultKind
	count int
}{
	{killProcess, 4}, {stopProcess, 2}, {rollProcesses, 1}, {freezeProcess, 2}, {killSchedulers, 1},
	{killRedis, 2}, {refuseWrites, 1}, {refuse, 2}, {hang, 2}, {slowDown, 2}, {cutOff, 2}, {cutConnections, 2}, {wrongClock, 1},
}

// fewCards is when another deck is put below the cards: often none of the last cards fits.
const fewCards = 8

const (
	// firstFault is when the first fault is made, and then come pauses of minPause to maxPause.
	firstFault = 2 * time.Second
	minPause   = 1500 * time.Millisecond
	maxPause   = 5 * time.Second
	// maxOutage is how long a server may be away.
	maxOutage = 30 * time.Second
	minFreeze = 20 * time.Second
	maxFreeze = 90 * time.Second
	// wrongClockTime is how long the schedulers have to notice what a clock that was wrong has left: two intervals.
	wrongClockTime = 20 * time.Second
	// restartTime is how long a process takes to be ready again, in most cases.
	restartTime = 6 * time.Second
	// recoveryTime is how long a server that was away is left alone.
	recoveryTime = 8 * time.Second
)

// fault is one thing to break.
type fault struct {
	kind faultKind
	// at is when, since the beginning, and lasts for how long.
	at, lasts time.Duration
	// processes are the processes that it hits; for a fault of a server, all that use it.
	processes []string
	// server is "" for a fault of processes alone.
	server string
	// silent hides from a process that it is cut off: its connections hang.
	silent bool
	// delay is how late a server answers.
	delay time.Duration
}

// String describes the fault in one line.
func (f fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", f.kind)
	switch f.kind {
	case killRedis, refuseWrites, refuse, hang, slowDown:
		b.WriteString(f.server)
	default:
		b.WriteString(strings.Join(f.processes, ", "))
		if f.server != "" {
			b.WriteString(" to " + f.server)
		}
	}
	if f.silent {
		b.WriteString(", without a word")
	}
	if f.delay > 0 {
		fmt.Fprintf(&b, ", by %s", f.delay)
	}
	if f.lasts > 0 {
		fmt.Fprintf(&b, ", for %s", f.lasts.Round(100*time.Millisecond))
	}
	return b.String()
}

// takesAway reports whether the processes cannot work during the fault.
func (f fault) takesAway() bool {
	return slices.Contains([]faultKind{killProcess, stopProcess, rollProcesses, freezeProcess, killSchedulers, cutOff}, f.kind)
}

// end is when the fault is mended.
func (f fault) end() time.Duration {
	switch f.kind {
	case killProcess, killSchedulers, stopProcess, freezeProcess:
		return f.at + f.lasts + restartTime
	case rollProcesses:
		return f.at + time.Duration(len(f.processes))*restartTime
	}
	return f.at + f.lasts + recoveryTime
}

// concerns names all that no other fault may break at the same time.
func (f fault) concerns() []string {
	if f.server == "" {
		return f.processes
	}
	var ways []string
	for _, p := range f.processes {
		ways = append(ways, wayName(p, f.server))
	}
	return ways
}

// wayName names the way from a process to a server.
func wayName(process, server string) string { return process + " to " + server }

// planner draws faults.
type planner struct {
	random *rand.Rand
	roles  []role
	length time.Duration
	faults []fault
}

// newPlan returns what to break in the given time, in the order of its beginning. One process of each role can always be
// reached, except when all schedulers are killed, or a server is away.
func newPlan(seed uint64, length time.Duration, roles []role) []fault {
	p := planner{random: rand.New(rand.NewPCG(seed, 1)), roles: roles, length: length}
	var cards []faultKind
	for at := firstFault; at < length; at += p.between(minPause, maxPause) {
		if len(cards) < fewCards {
			cards = append(cards, p.shuffled()...)
		}
		for i, kind := range cards { // a card that does not fit now may fit later
			if f, ok := p.draw(kind, at); ok {
				p.faults = append(p.faults, f)
				cards = slices.Delete(cards, i, i+1)
				break
			}
		}
	}
	return p.faults
}

func (p *planner) shuffled() []faultKind {
	var cards []faultKind
	for _, d := range deck {
		for range d.count {
			cards = append(cards, d.kind)
		}
	}
	p.random.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards
}

// between returns a duration, in whole milliseconds.
func (p *planner) between(least, most time.Duration) time.Duration {
	return least + time.Duration(p.random.Int64N(int64((most-least)/time.Millisecond)))*time.Millisecond
}

// outage returns how long a server is away: mostly some seconds, at most maxOutage.
func (p *planner) outage() time.Duration {
	return p.between(2*time.Second, p.between(3*time.Second, maxOutage))
}

func (p *planner) draw(kind faultKind, at time.Duration) (fault, bool) {
	f := fault{kind: kind, at: at}
	r := p.roles[p.random.IntN(len(p.roles))]
	process := r.names()[p.random.IntN(r.count)]
	f.server = r.servers[p.random.IntN(len(r.servers))]
	switch kind {
	case killProcess:
		f.server, f.processes, f.lasts = "", []string{process}, p.between(0, 5*time.Second)
	case stopProcess:
		f.server, f.processes, f.lasts = "", []string{process}, p.between(0, 2*time.Second)
	case rollProcesses:
		f.server, f.processes = "", r.names()
	case freezeProcess:
		f.server, f.processes, f.lasts = "", []string{process}, p.between(minFreeze, maxFreeze)
		if f.at+minFreeze > p.length {
			return fault{}, false
		}
	case killSchedulers:
		f.server, f.processes, f.lasts = "", p.users(redisName, schedulerRole), p.between(3*time.Second, 12*time.Second)
	case wrongClock: // no scheduler may start before one that lives has noticed
		f.server, f.processes, f.lasts = "", p.users(redisName, schedulerRole), wrongClockTime
	case killRedis:
		f.server, f.lasts = redisName, p.between(0, 10*time.Second)
		f.processes = p.users(redisName, "")
	case refuseWrites:
		f.server, f.lasts = redisName, p.outage()
		f.processes = p.users(redisName, "")
	case refuse, hang:
		f.processes, f.lasts = p.users(f.server, ""), p.outage()
	case slowDown:
		f.processes, f.lasts = p.users(f.server, ""), p.between(5*time.Second, 20*time.Second)
		f.delay = p.between(20*time.Millisecond, 250*time.Millisecond)
	case cutOff:
		f.processes, f.lasts = []string{process}, p.outage()
		f.silent = p.random.IntN(2) == 0
	case cutConnections:
		f.processes = []string{process}
		if p.random.IntN(2) == 0 {
			f.processes = p.users(f.server, "")
		}
	}
	f.lasts = min(f.lasts, p.length-f.at)
	return f, p.fits(f)
}

// users returns the processes that use the server, of all roles or only of one.
func (p *planner) users(server, only string) []string {
	var names []string
	for _, r := range p.roles {
		if slices.Contains(r.servers, server) && (only == "" || r.name == only) {
			names = append(names, r.names()...)
		}
	}
	return names
}

// fits reports whether f can be added to the faults.
func (p *planner) fits(f fault) bool {
	meanwhile := func(g fault) bool { return g.at < f.end() && f.at < g.end() }
	for _, g := range p.faults {
		shared := func(name string) bool { return slices.Contains(g.concerns(), name) }
		if meanwhile(g) && slices.ContainsFunc(f.concerns(), shared) {
			return false
		}
	}
	if !f.takesAway() || f.kind == killSchedulers {
		return true
	}
	r := p.roleOf(f.processes[0])
	away := func(name string) bool {
		return len(f.processes) < r.count && slices.Contains(f.processes, name) ||
			slices.ContainsFunc(p.faults, func(g fault) bool {
				return meanwhile(g) && g.takesAway() && slices.Contains(g.processes, name)
			})
	}
	if f.kind == rollProcesses { // one after the other
		return !slices.ContainsFunc(r.names(), away)
	}
	return slices.ContainsFunc(r.names(), func(name string) bool { return !away(name) })
}

func (p *planner) roleOf(process string) role {
	i := slices.IndexFunc(p.roles, func(r role) bool { return slices.Contains(r.names(), process) })
	return p.roles[i]
}
