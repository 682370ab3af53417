// Package tcpproxy stands between clients and a server, and takes the server away: down, cut off, hanging, far away, behind a
// firewall.
//
// It does not look at the data. Code that must, such as package faultproxy with MongoDB's protocol, serves the connections
// itself: see NewServing.
package tcpproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

const (
	// dialTimeout bounds a connection to the server.
	dialTimeout = 5 * time.Second
	bufferSize  = 32 << 10
)

// Proxy is one address in front of one server. It is safe for concurrent use.
type Proxy struct {
	// Addr is where clients connect, whether connections are let in or not.
	Addr string

	target string
	serve  func(*Conn)
	port   *freeport.Port
	// closing ends what waits for the server when the proxy is closed.
	closing context.Context
	close   context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	conns    map[*Conn]struct{}
	thawed   chan struct{} // closed while data passes
	delay    time.Duration
}

// New returns a proxy that accepts connections and copies all data from and to the target address.
func New(target string) (*Proxy, error) { return NewServing(target, (*Conn).copy) }

// NewServing returns a proxy that calls serve with each connection, which is closed when serve returns. Before each copy
// serve must call Conn.Pass.
func NewServing(target string, serve func(*Conn)) (*Proxy, error) {
	port, err := freeport.Reserve()
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	p := &Proxy{
		Addr: port.Address(), target: target, serve: serve, port: port,
		conns: make(map[*Conn]struct{}), thawed: make(chan struct{}),
	}
	close(p.thawed)
	p.closing, p.close = context.WithCancel(context.Background())
	if err := p.Up(); err != nil {
		return nil, errors.Join(err, port.Release())
	}
	return p, nil
}

// Close cuts all connections, refuses new ones and waits for the proxy's goroutines.
func (p *Proxy) Close() {
	p.close()
	p.Down()
	p.running.Wait()
	_ = p.port.Release() // nothing depends on it any more
}

// Down cuts all connections and refuses new ones, as a machine without the server does, until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close() // it has nothing to lose
		p.listener = nil
	}
	p.cut()
}

// Up lets connections in again.
func (p *Proxy) Up() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.closing.Err() != nil {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(p.closing, "tcp", p.Addr)
	if err != nil {
		return fmt.Errorf("opening a proxy: %w", err)
	}
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
	return nil
}

// Cut breaks all connections. New ones are let in.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

func (p *Proxy) cut() {
	for c := range p.conns {
		c.Close()
	}
}

// Freeze makes the server hang: until Thaw all connections stay open, new ones are accepted, and no data passes.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
		p.thawed = make(chan struct{})
	default: // it is frozen
	}
}

// Thaw ends Freeze, and passes the data on that it held up.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// Drop makes the connections that there are hang for good, as a firewall does that drops idle connections without a word. New ones
// work.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.dropped.Store(true)
	}
}

// Delay makes the server answer late: data takes so much longer in either direction. Zero ends that.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.connect(listener, client) })
	}
}

// connect connects a client with the server, until either of them ends.
func (p *Proxy) connect(listener net.Listener, client net.Conn) {
	ctx, cancel := context.WithTimeout(p.closing, dialTimeout)
	defer cancel()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &Conn{Client: client, Server: server, proxy: p, closed: make(chan struct{})}
	defer c.Close()
	p.mu.Lock()
	late := p.listener != listener // Down came first
	if !late {
		p.conns[c] = struct{}{}
	}
	p.mu.Unlock()
	if late {
		return
	}
	p.serve(c)
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// Conn is one client's connection, with the one to the server that belongs to it.
type Conn struct {
	Client, Server net.Conn

	proxy   *Proxy
	closing sync.Once
	closed  chan struct{}
	dropped atomic.Bool
}

// Close breaks both connections.
func (c *Conn) Close() {
	c.closing.Do(func() {
		close(c.closed)
		_, _ = c.Client.Close(), c.Server.Close() // breaking them is the purpose
	})
}

// Pass waits for as long as the proxy holds data up. It returns false when the connection was closed meanwhile.
func (c *Conn) Pass() bool {
	c.proxy.mu.Lock()
	thawed, delay := c.proxy.thawed, c.proxy.delay
	c.proxy.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.closed:
		}
	}
	if c.dropped.Load() {
		<-c.closed
	}
	select {
	case <-thawed:
	case <-c.closed:
	}
	select {
	case <-c.closed:
		return false
	default:
		return true
	}
}

// copy copies both ways until either end is closed.
func (c *Conn) copy() {
	var directions sync.WaitGroup
	directions.Go(func() { c.copyTo(c.Server, c.Client) })
	directions.Go(func() { c.copyTo(c.Client, c.Server) })
	directions.Wait()
}

func (c *Conn) copyTo(to, from net.Conn) {
	defer c.Close()
	buffer := make([]byte, bufferSize)
	for {
		n, err := from.Read(buffer)
		if !c.Pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
