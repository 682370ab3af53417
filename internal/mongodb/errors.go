package mongodb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/codex-api/codex-jobs/internal/syncrun"
)

// passingCodes are the server's error codes for what has nothing to do with what was asked: the server, or the one that
// it had to ask, cannot serve now.
var passingCodes = map[int]string{
	6:     "HostUnreachable",
	7:     "HostNotFound",
	24:    "LockTimeout",
	43:    "CursorNotFound", // the server restarted, or took the cursor for abandoned: a new one continues
	46:    "LockBusy",
	50:    "MaxTimeMSExpired",
	64:    "WriteConcernTimeout",
	74:    "NodeNotFound",
	79:    "UnknownReplWriteConcern",
	89:    "NetworkTimeout",
	91:    "ShutdownInProgress",
	100:   "UnsatisfiableWriteConcern",
	112:   "WriteConflict",
	133:   "FailedToSatisfyReadPreference",
	134:   "ReadConcernMajorityNotAvailableYet",
	175:   "QueryPlanKilled",
	189:   "PrimarySteppedDown",
	202:   "NetworkInterfaceExceededTimeLimit",
	237:   "CursorKilled",
	262:   "ExceededTimeLimit",
	365:   "TemporarilyUnavailable",
	462:   "IngressRequestRateLimitExceeded",
	9001:  "SocketException",
	10058: "LegacyNotPrimary",
	10107: "NotWritablePrimary",
	11600: "InterruptedAtShutdown",
	11601: "Interrupted",
	11602: "InterruptedDueToReplStateChange",
	13388: "StaleConfig",
	13435: "NotPrimaryNoSecondaryOk",
	13436: "NotPrimaryOrSecondary",
}

// passingLabels are the labels by which a server or the driver says that the same operation may succeed later.
var passingLabels = []string{
	"NetworkError", "NetworkTimeoutError", "ExceededTimeLimitError", "TransientTransactionError",
	"RetryableWriteError", "RetryableError", "SystemOverloadedError",
}

// classify says what was being done when err came back from the driver. It wraps syncrun.ErrUnavailable around errors
// that may pass, and the driver's own error stays in the chain. When the caller's context has ended, then that is the
// reason, whatever the driver made of it. ctx must be the caller's, without this package's deadline.
func classify(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if mayPass(err) {
		return fmt.Errorf("%s: %w: %w", doing, syncrun.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// mayPass tells an error of the deployment or of the way there from a refusal of what was asked.
func mayPass(err error) bool {
	// Timeouts of this package's own deadline, of server selection and of the connection pool.
	if mongo.IsTimeout(err) {
		return true
	}
	// Connections that broke, or were never made. A failure during the handshake carries no label.
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// The driver closed a connection pool because somebody else's operation failed; that error has no type of its own.
	var retryable interface{ Retryable() bool }
	if errors.As(err, &retryable) && retryable.Retryable() {
		return true
	}
	var labeled mongo.LabeledError
	if errors.As(err, &labeled) {
		for _, label := range passingLabels {
			if labeled.HasErrorLabel(label) {
				return true
			}
		}
	}
	var bulk mongo.BulkWriteException
	if errors.As(err, &bulk) && bulk.WriteConcernError != nil {
		return true // written, but not known to be kept
	}
	var server mongo.ServerError
	if errors.As(err, &server) {
		for _, code := range server.ErrorCodes() {
			if _, ok := passingCodes[code]; ok {
				return true
			}
		}
	}
	return false
}
