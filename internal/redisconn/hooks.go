// Hooks of go-redis' clients: one ends each command in time, one logs the loss of a connection.

package redisconn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// commandLimit is a hook that ends each command in time whose caller has set no deadline, however many sentinels, nodes and
// connection attempts the command takes. asynq's callers cannot set a deadline.
type commandLimit struct {
	limit time.Duration
	// failed is called after a command that no server answered. It can be nil.
	failed func(context.Context)
}

// DialHook implements redis.Hook.
func (*commandLimit) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (c *commandLimit) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return c.do(ctx, func(ctx context.Context) error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook implements redis.Hook.
func (c *commandLimit) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return c.do(ctx, func(ctx context.Context) error { return next(ctx, cmds) })
	}
}

func (c *commandLimit) do(ctx context.Context, next func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.limit)
		defer cancel()
	}
	err := next(ctx)
	var answer redis.Error
	if err != nil && c.failed != nil && !errors.As(err, &answer) && !errors.Is(err, context.Canceled) {
		c.failed(ctx)
	}
	return err
}

// connectionLog is a hook that logs the loss and the return of the connection, once each. In a cluster it does so for each node.
type connectionLog struct {
	log  *slog.Logger
	name string // logged instead of the address, unless it is ""

	mu    sync.Mutex
	links map[string]link // by address
}

// link is what is known of a connection.
type link struct {
	down  bool
	since time.Time // when that was seen
}

func newConnectionLog(log *slog.Logger, name string) *connectionLog {
	return &connectionLog{log: log, name: name, links: make(map[string]link)}
}

// DialHook implements redis.Hook.
func (c *connectionLog) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		begun := time.Now()
		conn, err := next(ctx, network, addr)
		if c.name != "" {
			addr = c.name
		}
		switch {
		case errors.Is(err, errNoTurn):
		case err != nil && !errors.Is(ctx.Err(), context.Canceled) && c.changed(addr, true, begun):
			c.log.Warn("Redis unreachable, reconnecting", "addr", addr, "error", err)
		case err == nil && c.changed(addr, false, begun):
			c.log.Info("Redis reachable again", "addr", addr)
		}
		return conn, err
	}
}

// changed records whether the address is down, and reports whether that has changed. An attempt that began before the last change
// says nothing new: it can end late, such as one that has waited for a server that is gone while others reached the next one.
func (c *connectionLog) changed(addr string, down bool, begun time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.links[addr]
	if before.down == down || begun.Before(before.since) {
		return false
	}
	c.links[addr] = link{down: down, since: time.Now()}
	return true
}

// ProcessHook implements redis.Hook.
func (c *connectionLog) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (c *connectionLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
