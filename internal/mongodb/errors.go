// Which of MongoDB's errors can pass.

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

// passingCodes are the server's error codes that can pass: the server, or another one that it had to ask, cannot serve now.
var passingCodes = map[int]string{
	6:     "HostUnreachable",
	7:     "HostNotFound",
	24:    "LockTimeout",
	43:    "CursorNotFound", // the server restarted, or thought the cursor abandoned: a new one goes on
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

// passingLabels are the error labels of the server and the driver that mean: the same operation may succeed later.
var passingLabels = []string{
	"NetworkError", "NetworkTimeoutError", "ExceededTimeLimitError", "TransientTransactionError",
	"RetryableWriteError", "RetryableError", "SystemOverloadedError",
}

// Classify adds to a driver's error what was being done. It also wraps syncrun.ErrUnavailable if the error can pass. If the
// caller's context has ended, it returns the cause of that, whatever the driver says. ctx must be the caller's, without this
// package's deadline.
func Classify(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if canPass(err) {
		return fmt.Errorf("%s: %w: %w", doing, syncrun.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unauthorized is the server's code for a user who lacks a right.
const unauthorized = 13

// LacksRight reports whether the server refused an operation because the user may not do it.
func LacksRight(err error) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && server.HasErrorCode(unauthorized)
}

// canPass reports whether the same operation may succeed later: the deployment, or the way to it, has failed. It returns false
// if the server refused the operation.
func canPass(err error) bool {
	// Timeouts of this package's deadlines, of server selection and of the connection pool.
	if mongo.IsTimeout(err) {
		return true
	}
	// Connections that broke, or were never made. A failure in the handshake has no label.
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// The driver closed a connection pool because another operation failed. That error has no type of its own.
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
	var written mongo.WriteException
	if errors.As(err, &written) && written.WriteConcernError != nil {
		return true // written, but perhaps not durable
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
