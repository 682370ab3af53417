// Package clients uses the API through clients that well-known generators make of its description: openapi-typescript, orval
// and Hey API for TypeScript, oapi-codegen for Go. Each must take the description as it is served, and its client must compile
// and trigger, list, show, cancel and pause.
//
// It does not test the API itself. The generators are pinned in package-lock.json and oapi/go.mod, and run in bin/clients, so
// that a second run finds them there.
package clients
