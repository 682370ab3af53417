package tcpproxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/codex-api/codex-jobs/internal/testbed/tcpproxy"
)

const (
	// waitLimit is how long an answer may take on a busy machine.
	waitLimit = time.Minute
	// silence is how long none is waited for.
	silence = 200 * time.Millisecond
)

// setup returns a proxy before a server that sends back what it gets.
func setup(t *testing.T) *tcpproxy.Proxy {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	p, err := tcpproxy.New(server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		_ = server.Close()
		serving.Wait()
	})
	return p
}

func dial(t *testing.T, p *tcpproxy.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a byte and waits so long for it to come back.
func ask(conn net.Conn, limit time.Duration) error {
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	return hear(conn, limit)
}

func hear(conn net.Conn, limit time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestDownAndUp(t *testing.T) {
	t.Parallel()
	p := setup(t)
	before := dial(t, p)
	if err := ask(before, waitLimit); err != nil {
		t.Fatal(err)
	}
	p.Down()
	if err := ask(before, waitLimit); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection of a server that is down: %v", err)
	}
	if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v", err)
	}
	if err := p.Up(); err != nil {
		t.Fatal(err)
	}
	if err := ask(dial(t, p), waitLimit); err != nil {
		t.Errorf("when it is up again: %v", err)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	p := setup(t)
	before := dial(t, p)
	if err := ask(before, waitLimit); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if err := ask(before, waitLimit); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that was cut: %v", err)
	}
	if err := ask(dial(t, p), waitLimit); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

// What a frozen server was sent arrives when it is thawed, unless the connection was cut.
func TestFreezeAndThaw(t *testing.T) {
	t.Parallel()
	p := setup(t)
	before := dial(t, p)
	if err := ask(before, waitLimit); err != nil {
		t.Fatal(err)
	}
	p.Freeze()
	during := dial(t, p)
	for _, conn := range []net.Conn{before, during} {
		if err := ask(conn, silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a frozen server answers: %v", err)
		}
	}
	p.Thaw()
	for _, conn := range []net.Conn{before, during} {
		if err := hear(conn, waitLimit); err != nil {
			t.Errorf("a thawed server does not answer: %v", err)
		}
	}
	p.Freeze()
	if err := ask(before, silence); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frozen server answers: %v", err)
	}
	p.Cut()
	p.Thaw()
	if err := hear(before, waitLimit); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what was cut off arrives: %v", err)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	p := setup(t)
	conn := dial(t, p)
	p.Delay(silence)
	begun := time.Now()
	if err := ask(conn, waitLimit); err != nil || time.Since(begun) < 2*silence {
		t.Errorf("an answer after %s, %v; want it to take twice %s", time.Since(begun), err, silence)
	}
}

// A proxy can be closed whatever state it is in.
func TestClose(t *testing.T) {
	t.Parallel()
	p := setup(t)
	conn := dial(t, p)
	p.Freeze()
	_ = ask(conn, silence)
	p.Delay(time.Hour)
	p.Close()
	if err := p.Up(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", p.Addr); err == nil {
		_ = conn.Close()
		t.Error("a closed proxy lets a connection in")
	}
}
