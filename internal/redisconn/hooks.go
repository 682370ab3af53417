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
	if err != nil && c.failed != nil && !isAnswer(err) && !errors.Is(err, context.Canceled) {
		c.failed(ctx)
	}
	return err
}

// connectionLog logs the loss and the return of the connection to each server, once each.
type connectionLog struct {
	log *slog.Logger

	mu    sync.Mutex
	links map[string]*link // by server
}

func newConnectionLog(log *slog.Logger) *connectionLog {
	return &connectionLog{log: log, links: make(map[string]*link)}
}

// of returns the hook of a client of the server, which is an address, or what its sentinels call it. A cluster's client makes and
// forgets clients of a node; they share what is known of it.
func (c *connectionLog) of(server string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[server] == nil {
		c.links[server] = &link{log: c.log.With("addr", server)}
	}
	return c.links[server]
}

// link is what is known of the connection to a server, and the hook that finds it out.
type link struct {
	log *slog.Logger

	mu    sync.Mutex
	down  bool
	since time.Time // when that, or an answer, was last seen
}

// DialHook implements redis.Hook.
func (l *link) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		begun := time.Now()
		conn, err := next(ctx, network, addr)
		switch {
		case errors.Is(err, errNoTurn):
		case err != nil && !errors.Is(ctx.Err(), context.Canceled) && l.changed(true, begun):
			l.log.Warn("Redis unreachable, reconnecting", "error", err)
		case err == nil && l.changed(false, begun):
			l.log.Info("Redis reachable again")
		}
		return conn, err
	}
}

// changed records whether the server is down, and reports whether that has changed. An attempt that began before the last change, or
// before the last answer, says nothing new: it can end late, such as one that has waited for a server that is gone, or for a
// sentinel that is slow, while others reached the next server.
func (l *link) changed(down bool, begun time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down == down || begun.Before(l.since) {
		return false
	}
	l.down, l.since = down, time.Now()
	return true
}

// ProcessHook implements redis.Hook.
func (l *link) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		l.note(err)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (l *link) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		l.note(err)
		return err
	}
}

// note remembers that a command was answered, while the server is thought to be there.
func (l *link) note(err error) {
	if err != nil && !isAnswer(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.down {
		l.since = time.Now()
	}
}

// isAnswer reports whether the error is a server's answer.
func isAnswer(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}
