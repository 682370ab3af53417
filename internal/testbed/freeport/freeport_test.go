package freeport_test

import (
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"

	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

// A reserved port refuses connections, serves the program that it is for, again and again, and is no one else's.
func TestReserve(t *testing.T) {
	t.Parallel()
	port, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if conn, err := net.Dial("tcp", port.Address()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("before it is used: %v, %v", conn, err)
		}
		listener, err := net.Listen("tcp", port.Address())
		if err != nil {
			t.Fatal(err)
		}
		if second, err := net.Listen("tcp", port.Address()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener: %v, %v", second, err)
		}
		conn, err := net.Dial("tcp", port.Address())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The listener's side closes first, so that its port is in TIME_WAIT when it is used again.
		for _, c := range []interface{ Close() error }{accepted, conn, listener} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := port.Release(); err != nil {
		t.Error(err)
	}
}

// The system gives a reserved port to no one who asks for any port.
func TestReservedPortsAreNotGivenAway(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux keeps ports")
	}
	const number = 500
	reserved := make(map[string]bool)
	for range number {
		port, err := freeport.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = port.Release() }()
		if reserved[port.Address()] {
			t.Fatalf("%s was reserved twice", port.Address())
		}
		reserved[port.Address()] = true
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	for range number {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = listener.Close() }()
		client, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		if reserved[listener.Addr().String()] || reserved[client.LocalAddr().String()] {
			t.Fatalf("a reserved port was given away: %s or %s", listener.Addr(), client.LocalAddr())
		}
	}
}
