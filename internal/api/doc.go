// Package api is the body of the API: the HTTP endpoints that trigger, inspect and control jobs, and asynqmon.
//
// It translates between HTTP, in the wire types of pkg/client, and package jobs. It decides nothing about jobs itself.
package api
