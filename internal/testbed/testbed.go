// Package testbed has what the tests of several packages need: waits with a deadline, a log that a test reads while it is
// written, ports that no other process gets, and a proxy that takes a server away.
//
// It knows nothing of the product. Package redistest gives a test a Redis database, and package procs starts programs.
package testbed

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/procs"
	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

const (
	// WaitLimit is how long a test waits for what must happen. It is no promise of the product, but long enough for a busy
	// machine.
	WaitLimit = time.Minute
	// poll is the pause between two checks.
	poll = 10 * time.Millisecond
)

// Eventually polls until ok returns true. Prefer a signal where there is one: see Receive and Await.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Within(t, WaitLimit, what, ok)
}

// Within is Eventually with another limit.
func Within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
}

// Receive returns the next value of a channel, or its zero value when it is closed.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(WaitLimit)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("waited %s in vain for %s", WaitLimit, what)
		panic("unreachable")
	}
}

// Log is a log that a test reads while it is written.
type Log = procs.Log

// NewLog returns a log and a logger that writes everything into it, at every level, as JSON. A test that fails prints the
// log's last lines.
func NewLog(t testing.TB) (*Log, *slog.Logger) {
	t.Helper()
	log := new(Log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log:\n%s", log.Tail(procs.TailLines))
		}
	})
	return log, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Await waits until the log has n lines that match, and returns them.
func Await(t testing.TB, log *Log, n int, match procs.Match) []procs.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), WaitLimit)
	defer cancel()
	found, err := log.Wait(ctx, n, match)
	if err != nil {
		t.Fatalf("waited in vain for the log to have %d times %s, has it %d times: %v", n, match, len(found), err)
	}
	return found
}

// FreePort returns a port of the loopback interface for a program that the test starts. No other process gets it before
// the test ends. What can listen on port 0 needs no FreePort.
func FreePort(t testing.TB) string {
	t.Helper()
	port, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = port.Release() })
	return port.String()
}

// Proxy stands between a test and a server of any kind, and can take that server away.
type Proxy struct {
	*tcpproxy.Proxy
	t testing.TB
}

// NewProxy starts a proxy to the target address; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p, err := tcpproxy.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &Proxy{p, t}
}

// Up lets connections through again.
func (p *Proxy) Up() {
	p.t.Helper()
	if err := p.Proxy.Up(); err != nil {
		p.t.Fatal(err)
	}
}
