// Package cli is the body of codexctl: its commands, what they print, and its exit status.
//
// It knows the API through pkg/client only, and nothing of Redis, MongoDB or asynq. What a program wants from the API
// it gets from pkg/client directly.
package cli
