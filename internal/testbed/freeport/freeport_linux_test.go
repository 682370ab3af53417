// Only Linux keeps ports.

package freeport_test

import (
	"net"
	"testing"

	"github.com/codex-api/codex-jobs/internal/testbed/freeport"
)

// The system gives a reserved port to no one who asks for any port.
func TestReservedPortsAreNotGivenAway(t *testing.T) {
	t.Parallel()
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
