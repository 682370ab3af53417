// How each kind of fault is made and mended.

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errTimeIsUp ends the time of the faults: all that are still open are mended then.
var errTimeIsUp = errors.New("the time is up")

// makeFaults makes and mends all faults of the plan. It returns early when the time is up, or ctx ends, with all faults
// mended.
func (c *chaos) makeFaults(ctx context.Context, plan []fault) error {
	breaking, cancel := context.WithTimeoutCause(ctx, c.length, errTimeIsUp)
	defer cancel()
	breaking, fail := context.WithCancelCause(breaking)
	defer fail(nil)
	var all sync.WaitGroup
	for _, f := range plan {
		all.Go(func() {
			if pause(breaking, f.at) != nil || breaking.Err() != nil {
				return
			}
			if err := c.make(ctx, breaking, f); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s: %w", f, err))
			}
		})
	}
	all.Go(func() { <-breaking.Done() })
	all.Wait()
	if err := context.Cause(breaking); !errors.Is(err, errTimeIsUp) {
		return err
	}
	return nil
}

// pause waits for so long, or until the time is up. It returns an error when no fault need be mended any more.
func pause(breaking context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-breaking.Done():
	}
	if err := context.Cause(breaking); err != nil && !errors.Is(err, errTimeIsUp) {
		return err
	}
	return nil
}

// claim takes a place. It may have to wait for another fault, when a slow machine takes longer than the plan expects. It
// returns false when ctx ends before.
func claim(ctx context.Context, place chan struct{}) bool {
	select {
	case place <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// make makes one fault, and mends it.
func (c *chaos) make(ctx, breaking context.Context, f fault) error {
	for _, name := range f.concerns() {
		place := c.claimed(name)
		if !claim(breaking, place) {
			return nil // the time is up
		}
		defer func() { <-place }()
	}
	c.say("%s", f)
	c.made(f.kind)
	switch f.kind {
	case killProcess, killSchedulers, stopProcess:
		return c.restart(ctx, breaking, f)
	case rollProcesses:
		return c.roll(ctx, breaking, f)
	case freezeProcess:
		m := c.crew[f.processes[0]]
		if err := m.freeze(); err != nil {
			return err
		}
		if err := pause(breaking, f.lasts); err != nil {
			return err
		}
		return m.thaw()
	case wrongClock:
		return c.leaveWrongTimes(ctx, breaking, f)
	case killRedis:
		return c.restartRedis(ctx, breaking, f)
	case refuseWrites:
		return c.refuseWrites(ctx, breaking, f)
	}
	return c.breakWays(breaking, f)
}

// claimed returns the place of a process or a way.
func (c *chaos) claimed(name string) chan struct{} {
	if m := c.crew[name]; m != nil {
		return m.claimed
	}
	return c.ways[name].claimed
}

// restart ends processes, and starts them again later.
func (c *chaos) restart(ctx, breaking context.Context, f fault) error {
	for _, name := range f.processes {
		if f.kind == stopProcess {
			c.crew[name].stop(ctx)
		} else {
			c.crew[name].kill()
		}
	}
	if err := pause(breaking, f.lasts); err != nil {
		return err
	}
	for _, name := range f.processes {
		if err := c.crew[name].start(); err != nil {
			return err
		}
	}
	return nil
}

// roll restarts one process after the other, as an upgrade does.
func (c *chaos) roll(ctx, breaking context.Context, f fault) error {
	for _, name := range f.processes {
		select {
		case <-breaking.Done():
			return nil
		default:
		}
		m := c.crew[name]
		m.stop(ctx)
		if err := m.start(); err != nil {
			return err
		}
		_ = m.await(breaking) // if its server is away it is not ready; the roll goes on all the same
	}
	return nil
}

// leaveWrongTimes leaves what a scheduler and a worker leave whose clocks were an hour ahead: ticks that were handled, and stamps of
// some users. It returns when the schedulers have noticed.
func (c *chaos) leaveWrongTimes(ctx, breaking context.Context, f fault) error {
	ahead := time.Now().Add(time.Hour)
	if err := c.documents.stampSome(ctx, collections[0], ahead); err != nil {
		return err
	}
	for job, every := range intervals {
		// While Redis is away there is nothing to leave.
		_ = c.redis.client.SetXX(ctx, "codex-jobs:{"+job+"}:tick", ahead.Truncate(every).UnixMilli(), 0).Err()
	}
	if err := pause(breaking, f.lasts); err != nil {
		return err
	}
	for noticed := 0; noticed < len(intervals) && breaking.Err() == nil; {
		noticed = 0
		for job := range intervals {
			last, err := c.redis.client.Get(ctx, "codex-jobs:{"+job+"}:tick").Int64()
			if err == nil && time.UnixMilli(last).Before(time.Now().Add(time.Minute)) {
				noticed++
			}
		}
		if err := pause(breaking, restPoll); err != nil {
			return err
		}
	}
	return nil
}

// restartRedis kills Redis, and starts it again. No process reaches the new one before the watcher listens to it.
func (c *chaos) restartRedis(ctx, breaking context.Context, f fault) error {
	for _, name := range f.concerns() {
		c.ways[name].refuse()
	}
	c.redis.kill()
	if err := pause(breaking, f.lasts); err != nil {
		return err
	}
	if err := c.redis.start(ctx); err != nil {
		return err
	}
	if err := c.watcher.listen(ctx); err != nil {
		return err
	}
	for _, name := range f.concerns() {
		if err := c.ways[name].open(); err != nil {
			return err
		}
	}
	return nil
}

// breakWays breaks ways to a server: one process's, or all.
func (c *chaos) breakWays(breaking context.Context, f fault) error {
	var ways []*way
	for _, name := range f.concerns() {
		ways = append(ways, c.ways[name])
	}
	for _, w := range ways {
		switch {
		case f.kind == cutConnections:
			w.cut()
		case f.kind == slowDown:
			w.slowDown(f.delay)
		case f.kind == hang || f.silent:
			w.freeze()
		default:
			w.refuse()
		}
	}
	if f.kind == cutConnections {
		return nil
	}
	if err := pause(breaking, f.lasts); err != nil {
		return err
	}
	for _, w := range ways {
		switch {
		case f.kind == slowDown:
			w.slowDown(0)
		case f.kind == hang || f.silent:
			w.thaw()
		default:
			if err := w.open(); err != nil {
				return err
			}
		}
	}
	return nil
}
