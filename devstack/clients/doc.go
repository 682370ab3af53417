// Package clients tests what meets the system from other languages.
//
// It uses the API through clients that well-known generators make of its description: openapi-typescript, orval and Hey API for
// TypeScript, oapi-codegen for Go. Each must take the description as it is served, and its client must compile and trigger,
// list, show, cancel and pause. And it runs examples/express, an endpoint in TypeScript, alone and behind a worker.
//
// It does not test the API itself. The packages are pinned in package-lock.json of either and in oapi/go.mod, and what is made
// of them is in bin/clients and bin/express, so that a second run finds them there.
package clients
