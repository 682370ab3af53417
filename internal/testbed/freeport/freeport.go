// Package freeport finds TCP ports for programs that cannot choose one themselves, and keeps them from other processes.
//
// A program that can listen on port 0 should do that instead. To find a port by listening on it and closing the listener is
// a race: another process may get it first.
package freeport

import (
	"fmt"
	"strconv"
)

// Port is a port of the loopback interface. Until Release the system does not choose it for a program that asks for any free
// port. A program that asks for this port, with SO_REUSEADDR as servers do, gets it. Only Linux does so: elsewhere the port
// is just free at first.
type Port struct {
	number  int
	release func() error
}

// Reserve finds a free port.
func Reserve() (*Port, error) {
	number, release, err := reserve()
	if err != nil {
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	return &Port{number, release}, nil
}

// String returns the port's number.
func (p *Port) String() string { return strconv.Itoa(p.number) }

// Address returns the port with the loopback interface's address.
func (p *Port) Address() string { return "127.0.0.1:" + p.String() }

// Release gives the port back. A program that listens on it goes on.
func (p *Port) Release() error { return p.release() }
