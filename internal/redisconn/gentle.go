// A client that asks little of a Redis in trouble. asynq's Servers look for tasks again at once after an error. Some of them together
// would ask a Redis that refuses 30,000 times a second.

package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// troublePause is the time between two commands while Redis is in trouble.
	troublePause = 250 * time.Millisecond
	// maxCommands is the most that a pipeline counts as: no long one is sent in a loop.
	maxCommands = 4
	// refusedTime is how long after a refusal Redis counts as in trouble. It may answer reads all the time.
	refusedTime = 2 * time.Second
	// dialPause is the time between two connections while Redis is in trouble: each costs commands, too. dialBurst of them can be
	// made at once.
	dialPause = time.Second
	dialBurst = 3
)

// gentle is a hook that makes commands wait for each other while Redis is in trouble: it has refused, or there was no answer.
type gentle struct {
	commands, dials turns
	// subscribes is true for a client that only has a subscription, which makes a new connection ten times a second when it cannot
	// subscribe. It sends no command that would show whether Redis is in trouble.
	subscribes bool

	mu      sync.Mutex
	refused time.Time // when Redis last refused
	away    bool      // the last command had no answer
}

func newGentle(subscribes bool) *gentle {
	return &gentle{commands: newTurns(troublePause, 1), dials: newTurns(dialPause, dialBurst), subscribes: subscribes}
}

// minDialTime is the least time that a dial gets after it had to wait: with less, a server that is well would look lost.
const minDialTime = 250 * time.Millisecond

// errNoTurn is the error of a dial that was not tried, because others were before it. It says nothing of the server.
var errNoTurn = errors.New("no time was left to connect")

// DialHook implements redis.Hook.
func (g *gentle) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if g.subscribes || g.inTrouble() {
			if err := g.dials.wait(ctx, 1, func() bool { return g.subscribes || g.inTrouble() }); err != nil {
				return nil, fmt.Errorf("%w: %w", errNoTurn, err)
			}
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < minDialTime {
				return nil, fmt.Errorf("%w: %w", errNoTurn, context.DeadlineExceeded)
			}
		}
		return next(ctx, network, addr)
	}
}

// ProcessHook implements redis.Hook.
func (g *gentle) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return g.do(ctx, 1, func() error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook implements redis.Hook.
func (g *gentle) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return g.do(ctx, min(len(cmds), maxCommands), func() error { return next(ctx, cmds) })
	}
}

func (g *gentle) do(ctx context.Context, commands int, next func() error) error {
	if g.inTrouble() {
		if err := g.commands.wait(ctx, commands, g.inTrouble); err != nil {
			return err
		}
	}
	err := next()
	g.note(err)
	return err
}

func (g *gentle) inTrouble() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.away || time.Since(g.refused) < refusedTime
}

// note remembers what the end of a command says of Redis.
func (g *gentle) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, refused := Refusal(err)
	switch {
	case refused:
		g.refused, g.away = time.Now(), false
	case err == nil || isAnswer(err):
		g.away = false
	case !errors.Is(err, context.Canceled):
		g.away = true
	}
}

// turns lets callers through one after another, with a pause after each.
type turns struct {
	pause time.Duration
	burst int
	taken chan struct{} // has a value while a caller has the turn
	next  *time.Time    // when the turn after the present one begins; only who has the turn uses it
}

func newTurns(pause time.Duration, burst int) turns {
	return turns{pause, burst, make(chan struct{}, 1), new(time.Time)}
}

// wait waits for a turn that counts as so many, as long as needed returns true. It returns an error if ctx ends before: an error
// that came at once would make a loop without a pause of the caller's.
func (t turns) wait(ctx context.Context, many int, needed func() bool) error {
	select {
	case t.taken <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.taken }()
	if !needed() {
		return nil
	}
	now := time.Now()
	if earliest := now.Add(-time.Duration(t.burst-1) * t.pause); t.next.Before(earliest) {
		*t.next = earliest
	}
	if wait := t.next.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	*t.next = t.next.Add(time.Duration(many) * t.pause)
	return nil
}
