// Package api is the body of the API: the HTTP endpoints that trigger, inspect and control jobs, and asynqmon.
//
// It translates between HTTP and package jobs, and decides nothing about jobs itself.
package api
