package jobs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// What go-redis leaves out when it connects: an end to whatever it tries, in time, and a line in the log.

// keepAlive is go-redis' own.
const keepAlive = 5 * time.Minute

// dialer connects as go-redis does by itself, but also with TLS it gives up when the context ends, and finds out of an
// idle connection whether the server has closed it.
func dialer(config *tls.Config, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: timeout, KeepAlive: keepAlive}
	dial := plain.DialContext
	if config != nil {
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return checkable{conn.(*tls.Conn)}, nil
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, &dialTimeout{network, addr}
		}
		return conn, err
	}
}

// dialTimeout is a connection attempt that took too long. The error of package net says that it is a context's, too,
// which go-redis takes for the end of its caller's patience: it would ask a sentinel that is gone for ever, and never
// turn to the next one.
type dialTimeout struct{ network, addr string }

func (e *dialTimeout) Error() string { return "dial " + e.network + " " + e.addr + ": i/o timeout" }

// Timeout lets go-redis see what it is.
func (*dialTimeout) Timeout() bool { return true }

// checkable is a connection that go-redis can look at before it uses it again, as it can at those without TLS.
type checkable struct{ *tls.Conn }

// SyscallConn implements syscall.Conn.
func (c checkable) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}

// patience is a hook that ends each command whose caller has set no deadline, as asynq's callers cannot: whatever number
// of sentinels, nodes and connection attempts it takes.
type patience struct {
	limit time.Duration
	// failed, if any, is told of a command that no server has answered.
	failed func(context.Context)
}

// DialHook implements redis.Hook.
func (*patience) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (p *patience) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return p.do(ctx, func(ctx context.Context) error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook implements redis.Hook.
func (p *patience) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return p.do(ctx, func(ctx context.Context) error { return next(ctx, cmds) })
	}
}

func (p *patience) do(ctx context.Context, next func(context.Context) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.limit)
		defer cancel()
	}
	err := next(ctx)
	var answer redis.Error
	if err != nil && p.failed != nil && !errors.As(err, &answer) && !errors.Is(err, context.Canceled) {
		p.failed(ctx)
	}
	return err
}

// connectionLog is a hook that logs the loss and the return of the connection, once each; of a cluster's connections,
// once for each node.
type connectionLog struct {
	log  *slog.Logger
	name string // in the place of the address

	mu   sync.Mutex
	down map[string]bool // by address
}

func newConnectionLog(log *slog.Logger, name string) *connectionLog {
	return &connectionLog{log: log, name: name, down: make(map[string]bool)}
}

// DialHook implements redis.Hook.
func (c *connectionLog) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if c.name != "" {
			addr = c.name
		}
		switch {
		case err != nil && ctx.Err() == nil && c.changed(addr, true):
			c.log.Warn("Redis unreachable, reconnecting", "addr", addr, "error", err)
		case err == nil && c.changed(addr, false):
			c.log.Info("Redis reachable again", "addr", addr)
		}
		return conn, err
	}
}

// changed records whether the address is down, and reports whether that is news.
func (c *connectionLog) changed(addr string, down bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.down[addr]
	if down {
		c.down[addr] = true
	} else {
		delete(c.down, addr)
	}
	return before != down
}

// ProcessHook implements redis.Hook.
func (c *connectionLog) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements redis.Hook.
func (c *connectionLog) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
