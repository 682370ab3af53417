// How a connection is made: as go-redis does it, but always in time.

package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// keepAlive is go-redis' own setting. The loss of a connection is noticed 45 s after its last byte.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}

// dialer connects as go-redis does. But with TLS it also gives up when the context ends, and go-redis does not use a connection
// again that the server has closed, or that is in doubt.
func dialer(config *tls.Config, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	plain, doubts := &net.Dialer{Timeout: timeout, KeepAliveConfig: keepAlive}, new(doubts)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var conn net.Conn
		var err error
		if config == nil {
			conn, err = plain.DialContext(ctx, network, addr)
		} else {
			conn, err = (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, addr)
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil, &dialTimeout{network, addr}
		case err != nil:
			return nil, err
		}
		checked := &checkable{Conn: conn, doubts: doubts}
		checked.answered.Store(time.Now().UnixNano())
		return checked, nil
	}
}

// dialTimeout is the error of a connection attempt that took too long. The errors of net and of crypto/tls match a context's
// error. Then go-redis would think that the caller's context has ended, and not retry.
type dialTimeout struct{ network, addr string }

func (e *dialTimeout) Error() string { return "dial " + e.network + " " + e.addr + ": i/o timeout" }

// Timeout implements net.Error, so that go-redis recognises a timeout.
func (*dialTimeout) Timeout() bool { return true }

// checkable lets go-redis check a connection before it is used again: whether the server has closed it, with TLS too, and whether
// it is in doubt. This needs RESP2: with RESP3 go-redis thinks that data on an idle connection is a push, and reads it without a
// time limit. (Its clients of sentinels always speak RESP3, but no data arrives on their connections.)
type checkable struct {
	net.Conn
	doubts   *doubts
	sent     atomic.Int64 // when something was last sent to the server (ns)
	answered atomic.Int64 // when the server last sent something (ns)
}

// Write implements net.Conn.
func (c *checkable) Write(b []byte) (int, error) {
	c.sent.Store(time.Now().UnixNano())
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *checkable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	var timeout net.Error
	switch {
	case n > 0:
		now := time.Now().UnixNano()
		c.answered.Store(now)
		c.doubts.heard(b[:n], now)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.doubts.unanswered(c.sent.Load())
	}
	return n, err
}

// SyscallConn implements syscall.Conn. go-redis asks for it before it uses a connection again, and closes the connection after an
// error.
func (c *checkable) SyscallConn() (syscall.RawConn, error) {
	if c.answered.Load() <= c.doubts.until.Load() {
		return nil, errDoubtful
	}
	conn := c.Conn
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return raw.SyscallConn()
}

var errDoubtful = errors.New("the connection may be dead, or lead to a wrong server")
