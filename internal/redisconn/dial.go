// How a connection is made: as go-redis does it, but with an end in time.

package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"
)

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
