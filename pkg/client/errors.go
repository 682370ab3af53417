package client

import (
	"errors"
	"fmt"
	"net/http"
)

// What can go wrong, and how a program distinguishes it.

var (
	// ErrUnreachable is in the error of a request without a whole answer: nothing listens, the connection broke, or the time
	// was up. It is then unknown whether the server did what the request asks for.
	ErrUnreachable = errors.New("the server could not be reached")
	// ErrAnswer is in the error of a request whose answer is not in the form of this API.
	ErrAnswer = errors.New("the server's answer is not one of codex-jobs")
)

// Error is an answer that refuses a request.
type Error struct {
	// StatusCode is HTTP's.
	StatusCode int
	// Message says what was wrong and what is right.
	Message string
}

// newError returns an Error; without a message from the server it has HTTP's name of the status.
func newError(status int, message string) *Error {
	if message == "" {
		message = http.StatusText(status)
	}
	return &Error{status, message}
}

func (e *Error) Error() string {
	return fmt.Sprintf("the server answered %d: %s", e.StatusCode, e.Message)
}

// IsNotFound reports whether there is no such job, or no such job type.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsConflict reports whether the job's state does not allow what was asked for.
func IsConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

// IsUnauthorized reports whether the API wants a key, or does not know the one that it got.
func IsUnauthorized(err error) bool { return hasStatus(err, http.StatusUnauthorized) }

// IsForbidden reports whether the key does not allow what was asked for.
func IsForbidden(err error) bool { return hasStatus(err, http.StatusForbidden) }

// Temporary reports whether the same request may succeed in a while, nothing else being changed: the server was not
// reached, or it said that it could not serve just then.
func Temporary(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.StatusCode == http.StatusTooManyRequests || refused.StatusCode >= 500 && refused.StatusCode != http.StatusNotImplemented
	}
	return errors.Is(err, ErrUnreachable)
}

func hasStatus(err error, status int) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.StatusCode == status
}
