// Package telemetry is how the deployables can be watched: the log, the registry of metrics and the traces. What is
// measured is up to the packages in which it happens.
package telemetry
