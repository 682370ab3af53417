// Between each process and each server that it uses is a proxy, so that every way can be broken by itself.

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
	// claimed has a place for whoever breaks it.
	claimed   chan struct{}
	chronicle *chronicle
}

// goneName is what the chronicle calls a way when nothing gets through, and troubledName when something may not.
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

// open lets connections through again that are made from now on.
func (w *way) open() error {
	if err := w.proxy.Up(); err != nil {
		return fmt.Errorf("opening the way from %s: %w", w.name, err)
	}
	w.chronicle.set(goneName(w.name), false)
	return nil
}

// refuse cuts all connections, and makes none.
func (w *way) refuse() {
	w.chronicle.set(goneName(w.name), true)
	w.proxy.Down()
}

// cut cuts all connections that there are.
func (w *way) cut() {
	w.chronicle.set(troubledName(w.name), true)
	defer w.chronicle.set(troubledName(w.name), false)
	w.proxy.Cut()
}

// silence lets nothing through, and keeps all connections, until speak.
func (w *way) silence() {
	w.chronicle.set(goneName(w.name), true)
	w.proxy.Freeze()
}

// speak ends silence. All connections are cut, so that nothing arrives that was sent meanwhile.
func (w *way) speak() {
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
