// Package client is the HTTP API for other programs: its wire types, and a Client with a method for each endpoint.
//
// It needs the standard library only, so that a program which triggers a job does not have to take in the queue that
// carries it. It knows nothing of what a job does: a payload is what the caller makes of it, and so is a result, except
// that those of the synchronisations are here. It does not try again what has failed: see Temporary.
package client
