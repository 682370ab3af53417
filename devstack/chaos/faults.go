// This is how each kind of fault is made, and made good again.

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errTimeIsUp ends the time in which things are broken: what is broken then is made good.
var errTimeIsUp = errors.New("the time is up")

// rampage makes all faults of the plan, and returns when all is whole again: when the time is up, or ctx ends.
func (c *chaos) rampage(ctx context.Context, plan []fault) error {
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

// pause waits for so long, or until the time is up. It returns an error when nothing need be made good any more.
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

// claim takes a place, for which somebody else may have to finish first: the plan leaves time for that, the machine
// perhaps not. It returns false when ctx ended before.
func claim(ctx context.Context, place chan struct{}) bool {
	select {
	case place <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// make makes one fault, and makes it good again.
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
	case killRedis:
		return c.restartRedis(ctx, breaking, f)
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

// restart ends processes, and starts them after a while.
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
		_ = m.await(breaking) // it may wait for a server that is away; then the next one has its turn all the same
	}
	return nil
}

// restartRedis kills Redis. Nobody reaches the new one before all that it says is heard.
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
		case f.kind == silence || f.silent:
			w.silence()
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
		case f.kind == silence || f.silent:
			w.speak()
		default:
			if err := w.open(); err != nil {
				return err
			}
		}
	}
	return nil
}
