package freeport_test

import (
	"errors"
	"net"
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
