// Between each process and each server that it uses is a proxy, so that every way can be broken by itself.

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// The servers.
const (
	redisName = "Redis"
	mongoName = "MongoDB"
)

const (
	// listenPatience bounds the wait for a proxy's own port, which somebody may have used while it was left.
	listenPatience = 10 * time.Second
	listenPoll     = 20 * time.Millisecond
	// toxicName is what a proxy calls what is wrong with it.
	toxicName = "toxic"
)

// way is the way from one process to one server.
type way struct {
	name    string
	address string // for the process
	proxy   *toxiproxy.Proxy
	// claimed has a place for whoever breaks it.
	claimed   chan struct{}
	chronicle *chronicle
}

// goneName is what the chronicle calls a way when nothing gets through, and troubledName when something may not.
func goneName(way string) string     { return way + " gone" }
func troubledName(way string) string { return way + " troubled" }

// newWay opens a way from the process to the server with the given name and address.
func newWay(process, server, upstream string, c *chronicle) (*way, error) {
	port, err := lastingPort()
	if err != nil {
		return nil, err
	}
	w := &way{
		name: wayName(process, server), address: net.JoinHostPort(loopback, port),
		claimed: make(chan struct{}, 1), chronicle: c,
	}
	owner := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w.proxy = toxiproxy.NewProxy(owner, w.name, w.address, upstream)
	return w, w.open()
}

// open lets connections through that are made from now on.
func (w *way) open() error {
	for deadline := time.Now().Add(listenPatience); ; time.Sleep(listenPoll) {
		err := w.proxy.Start()
		if err == nil {
			w.chronicle.set(goneName(w.name), false)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("opening the way from %s: %w", w.name, err)
		}
	}
}

// refuse cuts all connections, and makes none.
func (w *way) refuse() {
	w.chronicle.set(goneName(w.name), true)
	w.proxy.Stop()
}

// cut cuts all connections that there are.
func (w *way) cut() error {
	w.chronicle.set(troubledName(w.name), true)
	defer w.chronicle.set(troubledName(w.name), false)
	w.proxy.Stop()
	return w.open()
}

// silence makes all that the process sends vanish.
func (w *way) silence() error {
	w.chronicle.set(goneName(w.name), true)
	return w.poison(`{"name":%q,"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`, toxicName)
}

// slowDown makes all answers late.
func (w *way) slowDown(by time.Duration) error {
	w.chronicle.set(troubledName(w.name), true)
	return w.poison(`{"name":%q,"type":"latency","stream":"downstream","attributes":{"latency":%d,"jitter":%d}}`,
		toxicName, by.Milliseconds(), by.Milliseconds()/2)
}

func (w *way) poison(format string, args ...any) error {
	if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(format, args...))); err != nil {
		return fmt.Errorf("breaking the way from %s: %w", w.name, err)
	}
	return nil
}

// heal ends silence and slowDown. What was silenced is cut, so that nothing of what was sent arrives in part.
func (w *way) heal(ctx context.Context) error {
	if err := w.proxy.Toxics.RemoveToxic(ctx, toxicName); err != nil {
		return fmt.Errorf("mending the way from %s: %w", w.name, err)
	}
	w.chronicle.set(goneName(w.name), false)
	w.chronicle.set(troubledName(w.name), false)
	return nil
}

// close ends it for good.
func (w *way) close() { w.proxy.Stop() }
