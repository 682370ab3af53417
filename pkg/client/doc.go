// Package client is the HTTP API for other programs: its wire types, and a Client with a method for each endpoint.
//
// It needs the standard library only, so that a program which triggers a job does not depend on the queue that carries it.
// It does not know what a job does: payloads and results are the caller's, except those of the synchronisations. It does not
// repeat a request that failed: see Temporary.
package client
