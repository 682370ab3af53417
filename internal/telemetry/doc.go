// Package telemetry has what makes the programs observable: the log, the registry of metrics and the traces. It defines no
// metric of a job: each is in the package in which it happens.
package telemetry
