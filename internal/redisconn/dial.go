// How a connection is made: as go-redis does it, but always in time.

package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"
)

// keepAlive is go-redis' own setting. The loss of a connection is noticed 45 s after its last byte, and a firewall does not drop
// it as idle.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}

// dialer connects as go-redis does. But with TLS it also gives up when the context ends, and go-redis can see whether the server
// has closed an idle connection.
func dialer(config *tls.Config, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: timeout, KeepAliveConfig: keepAlive}
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
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, &dialTimeout{network, addr}
		}
		return conn, err
	}
}

// dialTimeout is the error of a connection attempt that took too long. The errors of net and of crypto/tls match a context's
// error. Then go-redis would think that the caller's context has ended, and not retry.
type dialTimeout struct{ network, addr string }

func (e *dialTimeout) Error() string { return "dial " + e.network + " " + e.addr + ": i/o timeout" }

// Timeout implements net.Error, so that go-redis recognises a timeout.
func (*dialTimeout) Timeout() bool { return true }

// checkable lets go-redis check whether the server has closed an idle TLS connection, as it does without TLS. This needs RESP2:
// with RESP3 go-redis thinks that data on an idle connection is a push, and reads it without a time limit. (Its clients of
// sentinels always speak RESP3, but no data arrives on their connections.)
type checkable struct{ *tls.Conn }

// SyscallConn implements syscall.Conn.
func (c checkable) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.NetConn().(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}
