// A proxy stands between each process and each server that it uses, so that each way can be broken by itself.

package main

import (
	"fmt"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

// The servers.
const (
	redisName = "Redis"
	mongoName = "MongoDB"
)

// way is the way from one process to one server.
type way struct {
	name  string
	proxy *tcpproxy.Proxy
	// claimed has one place, for the fault that breaks the way.
	claimed   chan struct{}
	chronicle *chronicle
}

// goneName is the chronicle's name of the times in which nothing gets through a way, and troubledName of those in which some
// data may not.
func goneName(way string) string     { return way + " gone" }
func troubledName(way string) string { return way + " troubled" }

// newWay opens a way from the process to the server with the given name and address.
func newWay(process, server, upstream string, c *chronicle) (*way, error) {
	w := &way{name: wayName(process, server), claimed: make(chan struct{}, 1), chronicle: c}
	var err error
	if w.proxy, err = tcpproxy.New(upstream); err != nil {
		return nil, fmt.Errorf("opening the way from %s: %w", w.name, err)
	}
	w.chronicle.set(goneName(w.name), false)
	return w, nil
}

// open lets new connections through again.
func (w *way) open() error {
	if err := w.proxy.Up(); err != nil {
		return fmt.Errorf("opening the way from %s: %w", w.name, err)
	}
	w.chronicle.set(goneName(w.name), false)
	return nil
}

// refuse cuts all connections, and refuses new ones.
func (w *way) refuse() {
	w.chronicle.set(goneName(w.name), true)
	w.proxy.Down()
}

// cut cuts all present connections.
func (w *way) cut() {
	w.chronicle.set(troubledName(w.name), true)
	defer w.chronicle.set(troubledName(w.name), false)
	w.proxy.Cut()
}

// freeze lets no data through, and keeps all connections, until thaw.
func (w *way) freeze() {
	w.chronicle.set(goneName(w.name), true)
	w.proxy.Freeze()
}

// thaw ends freeze. It cuts all connections, so that no data of the meantime arrives.
func (w *way) thaw() {
	w.proxy.Cut()
	w.proxy.Thaw()
	w.chronicle.set(goneName(w.name), false)
}

// slowDown makes all answers late; zero ends that.
func (w *way) slowDown(by time.Duration) {
	w.chronicle.set(troubledName(w.name), by > 0)
	w.proxy.Delay(by / 2) // in either direction
}

// close ends it for good.
func (w *way) close() { w.proxy.Close() }
