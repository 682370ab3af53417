package redistest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a test and a server, which it can take away. It knows nothing of what passes, so the server may
// be of any kind.
type Proxy struct {
	// Addr is where to connect.
	Addr string

	t        testing.TB
	target   string
	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	conns    map[net.Conn]struct{}
	thawed   chan struct{} // closed while data flows
	delay    time.Duration
	all      sync.WaitGroup
}

// listenPatience bounds the wait for the proxy's own port, which somebody may have used while it was free.
const listenPatience = 10 * time.Second

// NewProxy starts a proxy to the target address; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, conns: make(map[net.Conn]struct{}), thawed: make(chan struct{})}
	close(p.thawed)
	p.Addr = p.listen("127.0.0.1:0")
	t.Cleanup(func() {
		p.Thaw()
		p.Down()
		p.all.Wait()
	})
	return p
}

// Down cuts every connection and refuses new ones, as a machine without the server does.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
}

// Up lets connections through again.
func (p *Proxy) Up() {
	p.t.Helper()
	p.listen(p.Addr)
}

// listen lets connections in at the address, and returns it with the port that was chosen.
func (p *Proxy) listen(addr string) string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return addr
	}
	for deadline := time.Now().Add(listenPatience); ; time.Sleep(20 * time.Millisecond) {
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err == nil {
			p.listener = listener
			p.all.Go(func() { p.accept(listener) })
			return listener.Addr().String()
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("starting a proxy: %v", err)
		}
	}
}

// Freeze keeps every connection open and passes nothing on: a server that hangs.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thawed = make(chan struct{})
}

// Thaw passes on what Freeze has held up.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// Delay holds up all that passes, in either direction, for so long: a server that is far away.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
		if err != nil || !p.add(listener, client, server) {
			_ = client.Close()
			if server != nil {
				_ = server.Close()
			}
			continue
		}
		p.all.Go(func() { p.copy(server, client) })
		p.all.Go(func() { p.copy(client, server) })
	}
}

// add reports whether the listener is still in use; then Down closes the connections.
func (p *Proxy) add(listener net.Listener, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != listener {
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *Proxy) copy(to, from net.Conn) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, from)
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		thawed, delay := p.thawed, p.delay
		p.mu.Unlock()
		time.Sleep(delay)
		<-thawed
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
