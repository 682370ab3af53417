// Package faultproxy stands between a MongoDB client and its server and makes things go wrong on purpose, for tests:
// updates of chosen records that fail, commands that are answered with an error, connections that break, a server that
// stops answering, a server that is not there.
//
// It is not a MongoDB implementation. It reads commands of the current wire protocol (OP_MSG) without compression, and
// hands on unread whatever else passes. Clients need directConnection=true, as servers tell their own address.
package faultproxy

import (
	"fmt"
	"net/url"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

// Always is how often a fault happens that never ends.
const Always = -1

// Kind is what happens to a command.
type Kind int

const (
	// CommandError answers the command with Code and Message; the server does not see it.
	CommandError Kind = iota
	// WriteConcernError lets the server execute the command and adds a write concern error to its reply.
	WriteConcernError
	// CutBefore breaks the connection instead of handing the command on.
	CutBefore
	// CutAfter lets the server execute the command and breaks the connection instead of handing the reply on.
	CutAfter
	// Hang neither hands the command on nor answers it. The connection stays, and other connections are served.
	Hang
)

// Fault is something that goes wrong with a command.
type Fault struct {
	// Command is the name of the commands that it happens to: "update", "find", "getMore".
	Command string
	Kind    Kind
	// Code, Message and Labels are those of the error; a cut connection has none.
	Code    int
	Message string
	Labels  []string
	// Skip is how many such commands pass before the first fault.
	Skip int
	// Times is how often it happens, or Always. Zero means once.
	Times int
}

// Proxy is one listening address in front of one server. It is safe for concurrent use.
type Proxy struct {
	tcp *tcpproxy.Proxy

	mu      sync.Mutex
	faults  []*Fault
	updates []failedUpdate
	counts  map[string]int
	biggest int
}

// failedUpdate is the write error that updates of a record get.
type failedUpdate struct {
	id      bson.RawValue
	code    int
	message string
}

// New returns a proxy in front of the server at the host and port of a connection string, listening on a free port.
func New(uri string) (*Proxy, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, fmt.Errorf("fault proxy: reading the connection string: %w", err)
	}
	p := &Proxy{counts: make(map[string]int)}
	if p.tcp, err = tcpproxy.NewServing(u.Host, p.serve); err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	return p, nil
}

// URI returns the given connection string with the proxy in the server's place.
func (p *Proxy) URI(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", fmt.Errorf("fault proxy: reading the connection string: %w", err)
	}
	u.Host = p.tcp.Addr
	query := u.Query()
	query.Set("directConnection", "true")
	u.RawQuery = query.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// Close ends all connections and everything that the proxy runs.
func (p *Proxy) Close() { p.tcp.Close() }

// FailUpdates makes every update whose filter asks for one of the _ids fail with a write error, alone: the other
// updates of the same command reach the server. Code 121 with "Document failed validation" is what a server with a
// validator says.
func (p *Proxy) FailUpdates(code int, message string, ids ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		t, value, err := bson.MarshalValue(id)
		if err != nil {
			return fmt.Errorf("fault proxy: the _id %v: %w", id, err)
		}
		p.updates = append(p.updates, failedUpdate{id: bson.RawValue{Type: t, Value: value}, code: code, message: message})
	}
	return nil
}

// Inject makes something go wrong with the commands to come. Of several faults for one command the first that is left
// happens.
func (p *Proxy) Inject(f Fault) {
	if f.Times == 0 {
		f.Times = 1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &f)
}

// Heal takes all faults away, of commands and of updates, lets connections in again and answers again.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	p.faults, p.updates = nil, nil
	p.mu.Unlock()
	p.tcp.Thaw()
	return p.Accept()
}

// Cut breaks all connections; new ones are let in.
func (p *Proxy) Cut() { p.tcp.Cut() }

// Swallow keeps connections open but hands nothing on any more, in either direction, until Heal.
func (p *Proxy) Swallow() { p.tcp.Freeze() }

// Refuse breaks all connections and refuses new ones, until Accept or Heal.
func (p *Proxy) Refuse() { p.tcp.Down() }

// Accept lets connections in again.
func (p *Proxy) Accept() error {
	if err := p.tcp.Up(); err != nil {
		return fmt.Errorf("fault proxy: %w", err)
	}
	return nil
}

// Count returns how many of the named commands have come in, those that went wrong included.
func (p *Proxy) Count(command string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[command]
}

// BiggestUpdate returns how many updates the biggest update command carried.
func (p *Proxy) BiggestUpdate() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.biggest
}

// serve hands on what passes on a connection until either end is closed.
func (p *Proxy) serve(conn *tcpproxy.Conn) {
	c := &connection{Conn: conn, proxy: p, pending: make(map[int32]pending)}
	var directions sync.WaitGroup
	directions.Go(func() { defer c.Close(); c.requests() })
	directions.Go(func() { defer c.Close(); c.replies() })
	directions.Wait()
}

// fault counts the command and returns what goes wrong with it, if anything does.
func (p *Proxy) fault(command string) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[command]++
	for _, f := range p.faults {
		switch {
		case f.Command != command || f.Times == 0:
			continue
		case f.Skip > 0:
			f.Skip--
			return nil
		case f.Times > 0:
			f.Times--
		}
		happened := *f
		return &happened
	}
	return nil
}

// failure returns the write error that an update of a record gets.
func (p *Proxy) failure(id bson.RawValue) (failedUpdate, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.updates {
		if u.id.Equal(id) {
			return u, true
		}
	}
	return failedUpdate{}, false
}

func (p *Proxy) noteUpdates(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.biggest = max(p.biggest, n)
}
