// Package telemetry is how the deployables can be watched: the log.
package telemetry
